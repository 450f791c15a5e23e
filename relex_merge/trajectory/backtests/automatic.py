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
from dataclasses import dataclass, replace

import numpy as np

from relex_merge.errors import RelexError
from relex_merge.trajectory.backtests.backtest import Backtests, backtests, plan, stacked
from relex_merge.trajectory.backtests.error_law import ErrorLaw, fit_error_law
from relex_merge.trajectory.backtests.gaps import Gaps
from relex_merge.trajectory.backtests.groups import members
from relex_merge.trajectory.backtests.reasons import (
    not_judged,
    nothing_supported,
    praise,
    refusal,
    too_few,
)
from relex_merge.trajectory.backtests.results import (
    STAY,
    Backtest,
    Candidate,
    Choice,
    Group,
    Horizon,
)
from relex_merge.trajectory.backtests.verdict import CLEAR
from relex_merge.trajectory.parameters import SCOPES, Parameters
from relex_merge.trajectory.predictors import AUTO, PREDICTORS, FitParameters
from relex_merge.trajectory.predictors.history import FEWEST_FITTED, RANK_1, before_cut
from relex_merge.trajectory.statistics import SeriesStatistics, at_rest_where_broken

CANDIDATES = ("linear", "sqrt", "power", "saturating", "local", "damped")  # and stay
FEWEST = 6  # checkpoints below which no choice is made
MARGIN = 0.8
NEAR = 1.25  # factor between the ratios of backtests that are shown as evidence
# Of a squared error, relative to standing still: an exact prediction has a logarithm.
_FLOOR = 1e-12


@dataclass(frozen=True)
class Resolved:
    """What a recipe left open, made concrete.

    Attributes:
        parameters: Tensor → concrete parameters.
        choice: How they were found; None where the recipe left nothing open.
    """

    parameters: dict[str, Parameters]
    choice: Choice | None


def resolve(parameters: Mapping[str, Parameters], statistics: SeriesStatistics) -> Resolved:
    """Make ``auto`` concrete; parameters that leave nothing open stay as they are.

    With ``target_step: auto`` all tensors get one target.

    Args:
        parameters: Tensor → what the recipe asks for.
        statistics: Of the observed checkpoints of these tensors, however G was formed.

    Raises:
        RelexError: As :func:`choose`; or target and predictor are filtered in ways that no one
            choice can meet.
    """
    known = {name: p for name, p in parameters.items() if name in statistics.tensors}
    asked = {name: p for name, p in known.items() if p.is_open}
    if not asked:
        return Resolved(dict(parameters), None)
    shapes = {
        (p.predictor, p.rank, p.window, p.scope, p.auto_target, p.target_step)
        for p in asked.values()
    }
    if len(shapes) > 1:
        raise RelexError(
            "filters give the tensors different settings of what is chosen automatically; give "
            "predictor, rank, window, scope and target_step: auto without filters, or name the "
            "predictors"
        )
    first = next(iter(asked.values()))
    if first.auto_target and len(asked) < len(known):
        raise RelexError("target_step: auto is for the whole model; give it without filters")
    choice = choose(
        replace(statistics, tensors={n: statistics.tensors[n] for n in asked}),
        None if first.auto_target else first.target_step,
        fit=FitParameters(first.rank, first.window),
        candidates=CANDIDATES if first.predictor == AUTO else (first.predictor,),
        scope=first.scope if first.predictor == AUTO else "model",
    )
    concrete = {
        name: replace(p, predictor=choice.names[name], target_step=choice.target, auto_target=False)
        for name, p in asked.items()
    }
    return Resolved({**parameters, **concrete}, choice)


def choose(
    statistics: SeriesStatistics,
    target: float | None,
    *,
    fit: FitParameters = RANK_1,
    candidates: Sequence[str] = CANDIDATES,
    scope: str = "model",
) -> Choice:
    """Choose the best predictor for ``target``, or for None the furthest step that is supported.

    Deterministic. A candidate whose arithmetic fails is not chosen, and the reasons say so; tensors
    whose G is broken count as at rest.

    Args:
        statistics: Of the observed checkpoints, and nothing later.
        target: A step, or None.
        fit: How the candidates fit coefficients.
        candidates: Names in ``PREDICTORS``; ``stay`` is always among them.
        scope: One of ``SCOPES``: for what a choice is made.

    Raises:
        RelexError: An unknown scope or candidate.
    """
    if scope not in SCOPES:
        raise RelexError(f"scope is {scope!r}; it can be {', '.join(SCOPES)}")
    for name in candidates:
        if name not in PREDICTORS:
            raise RelexError(f"predictor is {name!r}; it can be {', '.join(PREDICTORS)}")
    steps = statistics.steps
    statistics, _ = at_rest_where_broken(statistics)
    gaps = Gaps()
    names = [n for n in candidates if n != STAY]
    last = float(steps[-1])
    grouped = _grouped(list(statistics.tensors), scope)
    if len(steps) < FEWEST:
        few = Group(STAY, (too_few(len(steps), FEWEST),), ())
        return _choice(dict.fromkeys(grouped, few), grouped, last, target or last, scope)
    ratio = None if target is None else target / last
    tests = _run_backtests(statistics, ratio, names, fit, gaps)
    curve: tuple[Horizon, ...] = ()
    if target is None:
        whole = _together(tests, names, list(range(len(statistics.tensors))))
        curve = _curve(whole, names)
        target = _supported(curve)
        if target is None:
            none = Group(STAY, (nothing_supported(last, names),), _witnesses(whole, names, 2.0))
            return _choice(dict.fromkeys(grouped, none), grouped, last, last, scope, curve)
    rows = {name: i for i, name in enumerate(statistics.tensors)}
    groups = {
        label: _choose_for(_together(tests, names, [rows[n] for n in inside]), names, target)
        for label, inside in grouped.items()
    }
    failed = tuple(not_judged(gap) for gap in gaps.found)
    groups = {label: replace(g, reasons=g.reasons + failed) for label, g in groups.items()}
    return _choice(groups, grouped, last, target, scope, curve)


def _grouped(tensors: list[str], scope: str) -> dict[str, list[str]]:
    if scope == "model":
        return {"model": tensors}
    return members(tensors)[1] if scope == "module" else {name: [name] for name in tensors}


def _choice(
    groups: Mapping[str, Group],
    grouped: Mapping[str, Sequence[str]],
    last: float,
    target: float,
    scope: str,
    curve: tuple[Horizon, ...] = (),
) -> Choice:
    names = {name: groups[label].name for label, inside in grouped.items() for name in inside}
    moving = [name for name in names.values() if name != STAY]
    if not moving:
        return Choice(STAY, last, scope, groups, names, curve)
    common = Counter(moving).most_common(1)[0][0]
    return Choice(common, target, scope, groups, names, curve)


@dataclass(frozen=True)
class _Pooled:
    """The backtests of some tensors laid end to end, N = 1, and the law of each candidate."""

    tests: Backtests
    laws: Mapping[str, ErrorLaw | None]

    @property
    def widest(self) -> float | None:
        """The furthest ratio that was backtested."""
        return max((law.widest for law in self.laws.values() if law is not None), default=None)


def _run_backtests(
    statistics: SeriesStatistics,
    ratio: float | None,
    names: Sequence[str],
    fit: FitParameters,
    gaps: Gaps,
) -> Backtests:
    """Backtest the named predictors on every tensor, at ``ratio`` too."""
    steps = statistics.steps
    beyond = ratio if ratio is not None and ratio > 1 else None
    predictors = [PREDICTORS[name].with_fit(fit) for name in names]
    return backtests(stacked(statistics), steps, plan(steps, beyond), predictors, gaps.attempt)


def _together(tests: Backtests, names: Sequence[str], rows: list[int]) -> _Pooled:
    """Lay the tensors ``rows`` end to end."""
    still = tests.still[rows].sum(axis=0, keepdims=True)
    errors = {
        name: np.maximum(tests.errors[name][rows].sum(axis=0, keepdims=True), _FLOOR * still)
        for name in names
    }
    pooled = replace(tests, still=still, errors=errors)
    return _Pooled(pooled, {name: fit_error_law(pooled, name) for name in names})


def _witnesses(pooled: _Pooled, names: Sequence[str], ratio: float) -> tuple[Candidate, ...]:
    """Return what speaks for each predictor at ``ratio``."""
    return tuple(_candidate(pooled, name, ratio) for name in names)


def _candidate(pooled: _Pooled, name: str, ratio: float) -> Candidate:
    tests, law = pooled.tests, pooled.laws[name]
    told = law is not None and ratio <= law.widest * 1.05
    low, expected, high = (
        law.skill(ratio, z) if law is not None and told else None for z in (-CLEAR, 0, CLEAR)
    )
    near = [
        p
        for p in range(len(tests.target))
        if max(tests.ratio[p] / ratio, ratio / tests.ratio[p]) <= NEAR
        and tests.fitted[p] >= FEWEST_FITTED
        and np.isfinite(tests.pooled(name, p, [0]))
    ]
    trials = tuple(
        Backtest(
            float(tests.steps[tests.fitted[p] - 1]),
            float(tests.steps[tests.target[p]]),
            tests.pooled(name, p, [0]),
        )
        for p in near
    )
    return Candidate(name, expected, low, high, _same_ratio(tests, name, ratio), trials)


def _same_ratio(tests: Backtests, name: str, ratio: float) -> float | None:
    """Skill of predicting the last checkpoint from the latest backtested cut at least as far."""
    cut = before_cut(tests.steps, ratio)
    reach = tests.last()
    usable = [p for p in reach if FEWEST_FITTED <= tests.fitted[p] <= cut and tests.still[0, p] > 0]
    if not usable:
        return None
    skill = tests.pooled(name, max(usable, key=lambda p: tests.fitted[p]), [0])
    return skill if np.isfinite(skill) else None


def _best(candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the candidate that is chosen, None for ``stay``."""
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


def _choose_for(pooled: _Pooled, names: Sequence[str], target: float) -> Group:
    ratio = target / float(pooled.tests.steps[-1])
    if ratio <= 1:
        return Group("linear", (f"Step {target:g} is not beyond the last observed one.",), ())
    candidates = _witnesses(pooled, names, ratio)
    best = _best(candidates)
    if best is None:
        return Group(STAY, (refusal(candidates, pooled.widest, ratio, target),), candidates)
    return Group(best.name, (praise(best, candidates, target),), candidates)


def _curve(pooled: _Pooled, names: Sequence[str]) -> tuple[Horizon, ...]:
    """Skill against horizon of whatever is chosen there, as far as backtests reach."""
    steps = pooled.tests.steps
    widest = pooled.widest or 1.0
    horizons = steps[-1] * np.geomspace(1.1, widest, 40) if widest > 1.1 else np.empty(0)
    if np.all(steps == np.floor(steps)):
        horizons = np.floor(horizons)
    points = []
    for step in np.unique(horizons[horizons > steps[-1]]):
        best = _best(_witnesses(pooled, names, float(step / steps[-1])))
        low, expected = (0.0, 0.0) if best is None else (best.low or 0.0, best.skill or 0.0)
        points.append(Horizon(float(step), STAY if best is None else best.name, low, expected))
    return tuple(points)


def _supported(curve: Sequence[Horizon]) -> float | None:
    """Return the furthest step up to which the skill is clearly positive all the way."""
    furthest = None
    for point in curve:
        if point.predictor == STAY or point.low <= 0:
            break
        furthest = point.step
    return furthest
