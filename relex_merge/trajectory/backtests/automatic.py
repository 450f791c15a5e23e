"""``predictor: auto`` and ``target_step: auto``: chosen from the Gram matrices, by backtest.

Two witnesses speak for each candidate, those of the verdict: its backtest at the ratio asked for,
and the error law fitted to all its backtests, over every cut
(:mod:`relex_merge.trajectory.backtests.error_law`). The worse of the two counts. The line, which is
the paper's, keeps its place unless another is expected to err less than ``MARGIN`` times as much;
what is not clearly expected to beat standing still, by one standard deviation of the law, gives way
to ``stay``. Only G and steps of the observed checkpoints are looked at.

Measured on 46 miniature runs that also served to choose this rule (30 of 200 steps observed, mean
skill at step 200, skills below −3 counted as −3): the line 0.42; this rule 0.65 with scope model,
0.64 with module, 0.62 with tensor. With scope model none fell behind the line by more than 0.02,
with module 17 %, with tensor 28 %. On other seeds: tests/benchmarks/predictors.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from relex_merge.errors import RelexError
from relex_merge.trajectory.backtests.evidence import Tried, run_backtests, together, witnesses
from relex_merge.trajectory.backtests.groups import members
from relex_merge.trajectory.backtests.results import STAY, Candidate, Choice, Group
from relex_merge.trajectory.backtests.words import nothing_supported, praise, refusal, too_few
from relex_merge.trajectory.parameters import SCOPES
from relex_merge.trajectory.predictors import PREDICTORS
from relex_merge.trajectory.statistics import SeriesStatistics

CANDIDATES = ("linear", "sqrt", "power", "saturating", "local", "damped")  # and stay
FEWEST = 6  # checkpoints below which no choice is made
MARGIN = 0.8


def choose(
    statistics: SeriesStatistics,
    target: float | None,
    *,
    rank: int = 1,
    window: int | None = None,
    candidates: Sequence[str] = CANDIDATES,
    scope: str = "model",
) -> Choice:
    """The best continuation to ``target``, or for None to the furthest step that is supported.

    statistics: of the observed checkpoints, and nothing later. candidates: names in
    ``PREDICTORS``; ``stay`` is always among them. Deterministic. Raises RelexError for an unknown
    scope or an unknown candidate.
    """
    if scope not in SCOPES:
        raise RelexError(f"scope is {scope!r}; it can be {', '.join(SCOPES)}")
    for name in candidates:
        if name not in PREDICTORS:
            raise RelexError(f"predictor is {name!r}; it can be {', '.join(PREDICTORS)}")
    steps = statistics.steps
    names = [n for n in candidates if n != STAY]
    last = float(steps[-1])
    grouped = _grouped(list(statistics.tensors), scope)
    if len(steps) < FEWEST:
        few = Group(STAY, (too_few(len(steps), FEWEST),), ())
        return _made(dict.fromkeys(grouped, few), grouped, last, target or last, scope)
    ratio = None if target is None else target / last
    tests = run_backtests(statistics, ratio, names, rank, window)
    curve: tuple[tuple[float, str, float, float], ...] = ()
    if target is None:
        whole = together(tests, names, list(range(len(statistics.tensors))))
        curve = _curve(whole, names)
        supported = _supported(curve)
        if supported is None:
            none = Group(STAY, (nothing_supported(last, names),), witnesses(whole, names, 2.0))
            return _made(dict.fromkeys(grouped, none), grouped, last, last, scope, curve)
        target, ratio = supported, supported / last
    assert ratio is not None
    rows = {name: i for i, name in enumerate(statistics.tensors)}
    groups = {
        label: _decide(together(tests, names, [rows[n] for n in inside]), names, ratio, target)
        for label, inside in grouped.items()
    }
    return _made(groups, grouped, last, target, scope, curve)


def _grouped(tensors: list[str], scope: str) -> dict[str, list[str]]:
    if scope == "model":
        return {"model": tensors}
    return members(tensors)[1] if scope == "module" else {name: [name] for name in tensors}


def _made(
    groups: Mapping[str, Group],
    grouped: Mapping[str, Sequence[str]],
    last: float,
    target: float,
    scope: str,
    curve: tuple[tuple[float, str, float, float], ...] = (),
) -> Choice:
    names = {name: groups[label].name for label, inside in grouped.items() for name in inside}
    moving = [name for name in names.values() if name != STAY]
    if not moving:
        return Choice(STAY, last, scope, groups, names, curve)
    common = Counter(moving).most_common(1)[0][0]
    return Choice(common, target, scope, groups, names, curve)


def _best(candidates: Sequence[Candidate]) -> Candidate | None:
    """The candidate that is chosen, None for ``stay``."""
    usable = [c for c in candidates if c.skill is not None]
    if not usable:
        return None
    best = max(usable, key=lambda c: c.skill or 0.0)  # the first of equals
    line = next((c for c in usable if c.name == "linear"), None)
    if line is not None and 1 - (best.skill or 0.0) > MARGIN * (1 - (line.skill or 0.0)):
        best = line
    assert best.skill is not None
    # The law must be clear, as for the verdict; a backtest alone is one trial of few checkpoints.
    return best if best.skill > 0 and best.low is not None and best.low > 0 else None


def _decide(tried: Tried, names: Sequence[str], ratio: float, target: float) -> Group:
    if ratio <= 1:
        return Group("linear", (f"Step {target:g} is not beyond the last observed one.",), ())
    candidates = witnesses(tried, names, ratio)
    best = _best(candidates)
    if best is None:
        return Group(STAY, (refusal(candidates, tried.widest, ratio, target),), candidates)
    return Group(best.name, (praise(best, candidates, target),), candidates)


def _curve(tried: Tried, names: Sequence[str]) -> tuple[tuple[float, str, float, float], ...]:
    """Skill against horizon of whatever is chosen there, as far as backtests reach."""
    steps = tried.tests.steps
    widest = tried.widest or 1.0
    horizons = steps[-1] * np.geomspace(1.1, widest, 40) if widest > 1.1 else np.empty(0)
    if np.all(steps == np.floor(steps)):
        horizons = np.floor(horizons)
    points = []
    for step in np.unique(horizons[horizons > steps[-1]]):
        best = _best(witnesses(tried, names, float(step / steps[-1])))
        low, expected = (0.0, 0.0) if best is None else (best.low or 0.0, best.skill or 0.0)
        points.append((float(step), STAY if best is None else best.name, low, expected))
    return tuple(points)


def _supported(curve: Sequence[tuple[float, str, float, float]]) -> float | None:
    """The furthest step up to which the skill is clearly positive all the way."""
    furthest = None
    for step, name, low, _ in curve:
        if name == STAY or low <= 0:
            break
        furthest = step
    return furthest
