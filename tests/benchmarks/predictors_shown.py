"""Tables and the figure of :mod:`tests.benchmarks.calibrate_predictors`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from relex_merge.trajectory.gram import Array
from tests.benchmarks.automatic import Tried

if TYPE_CHECKING:
    from tests.benchmarks.calibrate_predictors import Outcome

KINDS = ("greedy", "sampled")
MODELS = ("observed", "linear", "auto", "real")
PROBLEMS = 2048
POINTS = 0.02
RESAMPLES = 10_000


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Rank correlation; ties share their mean rank. NaN where one side is constant."""

    def ranks(values: Sequence[float]) -> Array:
        _, place, count = np.unique(values, return_inverse=True, return_counts=True)
        return np.asarray((np.cumsum(count) - (count - 1) / 2)[place])

    a, b = ranks(x), ranks(y)
    spread = a.std() * b.std()
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread else float("nan")


def interval(values: Array, groups: Sequence[object]) -> str:
    """Write mean and 95 % interval, by bootstrap over ``groups``: targets of a run agree."""
    rng = np.random.default_rng(0)
    names = sorted({str(g) for g in groups})
    member = np.asarray([names.index(str(g)) for g in groups])
    sums = np.bincount(member, values, len(names))
    sizes = np.bincount(member, minlength=len(names))
    drawn = rng.integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{100 * values.mean():+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def gains(found: Sequence[Outcome], over: str, kind: int) -> Array:
    """(n,): accuracy of auto minus that of ``over``."""
    return np.asarray([o.accuracy["auto"][kind] - o.accuracy[over][kind] for o in found])


def _noise(found: Sequence[Outcome], over: str, kind: int) -> Array:
    """(n,): standard error of each gain as if the two were measured on different problems."""
    p = np.asarray([[o.accuracy[name][kind] for name in ("auto", over)] for o in found])
    return np.asarray(np.sqrt((p * (1 - p)).sum(axis=1) / PROBLEMS))


def goals(found: Sequence[Outcome]) -> str:
    """Every figure that the issue names, by regime."""
    regimes: dict[str, Callable[[Outcome], bool]] = {
        "all": lambda o: True,
        "many rollouts, 1e-6 to 3e-5": lambda o: o.key.rollouts == "many",
        "few rollouts, 3e-5 to 5e-4": lambda o: o.key.rollouts == "few",
    }
    lines = [["", *regimes]]
    parts = [[o for o in found if keep(o)] for keep in regimes.values()]
    lines.append(["cases (runs)", *(f"{len(p)} ({len({o.key for o in p})})" for p in parts)])
    for kind, name in enumerate(KINDS):
        for over in ("observed", "linear"):
            shown = [interval(gains(p, over, kind), [o.key for o in p]) for p in parts]
            lines.append([f"gain of auto over {over}, {name}, points", *shown])
        below = [f"{np.mean(gains(p, 'observed', kind) < -POINTS):.1%}" for p in parts]
        lines.append([f"auto more than 2 points below observed, {name}", *below])
        worst = [f"{100 * gains(p, 'observed', kind).min():+.1f}" for p in parts]
        lines.append([f"worst gain over observed, {name}, points", *worst])
        fair = [
            f"{np.mean(gains(p, 'linear', kind) >= -2 * _noise(p, 'linear', kind)):.1%}"
            for p in parts
        ]
        lines.append([f"auto at least linear − 2 standard errors, {name}", *fair])
    for label, pick in _PAIRS.items():
        pairs = [[pick(o.tried, o.skill) for o in p] for p in parts]
        lines.append([f"rank correlation: {label}", *(_rank(pair) for pair in pairs)])
    chosen = [Counter(o.tried.chosen for o in p).most_common() for p in parts]
    lines.append(["chosen", *(", ".join(f"{n} {k}" for k, n in c) for c in chosen)])
    return _markdown(lines)


_PAIRS: dict[str, Callable[[Tried, Mapping[str, float]], tuple[float, float]]] = {
    "same-ratio backtest of linear / its true skill": lambda t, true: (
        t.same_ratio["linear"],
        true["linear"],
    ),
    "predicted skill of linear / its true skill": lambda t, true: (
        t.predicted["linear"],
        true["linear"],
    ),
    "predicted skill of the best candidate / its true skill": lambda t, true: (
        t.predicted[t.best],
        true[t.best],
    ),
    "lower bound of the best candidate / its true skill": lambda t, true: (
        t.low[t.best],
        true[t.best],
    ),
}


def _rank(pairs: Sequence[tuple[float, float]]) -> str:
    usable = [pair for pair in pairs if np.isfinite(pair).all()]
    return f"{spearman(*zip(*usable, strict=True)):+.2f}" if len(usable) > 2 else "–"


def main_table(found: Sequence[Outcome]) -> str:
    """One row per run and target; accuracies in per cent, greedy / sampled."""
    head = ["run", "to step", "chosen", "backtest", "predicted", "true: linear", "true: auto"]
    lines = [[*head, *MODELS]]
    for o in found:
        figures = (o.tried.same_ratio["linear"], o.tried.predicted[o.tried.best])
        lines.append(
            [
                str(o.key),
                str(o.target),
                o.tried.chosen,
                *(f"{x:+.2f}" for x in (*figures, o.skill["linear"], o.skill["auto"])),
                *(" / ".join(f"{100 * a:.1f}" for a in o.accuracy[name]) for name in MODELS),
            ]
        )
    return _markdown(lines)


def findings(laws: Mapping[str, Sequence[tuple[Tried, Mapping[str, float]]]]) -> str:
    """One row per synthetic law: what was chosen, what it gained, how well that was foreseen."""
    head = ["law", "runs", "linear", "auto", "auto < −0.1", "linear < −0.1", "rank", "chosen"]
    lines = [head]
    for family, runs in laws.items():
        skill = {n: np.asarray([true[n] for _, true in runs]) for n in ("linear", "auto")}
        pick = _PAIRS["predicted skill of the best candidate / its true skill"]
        chosen = Counter(t.chosen for t, _ in runs).most_common()
        lines.append(
            [
                family,
                str(len(runs)),
                *(f"{np.median(skill[n]):+.2f}" for n in ("linear", "auto")),
                *(f"{np.mean(skill[n] < -0.1):.0%}" for n in ("auto", "linear")),
                _rank([pick(*run) for run in runs]),
                ", ".join(f"{n} {k}" for k, n in chosen),
            ]
        )
    return _markdown(lines)


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    head, *rest = lines
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *rest]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def figure(found: Sequence[Outcome], path: Path) -> None:
    """Expected against true skill, and the accuracy of auto and linear against the observed."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    picture, (left, right) = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    label = "predicted skill of the best candidate / its true skill"
    ordered = sorted(found, key=lambda o: o.key.rollouts)
    for rollouts, part in groupby(ordered, key=lambda o: o.key.rollouts):
        pairs = np.asarray([_PAIRS[label](o.tried, o.skill) for o in part])
        left.scatter(*np.clip(pairs, -3, 1).T, s=14, alpha=0.7, label=f"{rollouts} rollouts a step")
    left.plot([-3, 1], [-3, 1], color="grey", linewidth=0.8)
    left.set(xlabel="predicted skill (below −3 at −3)", ylabel="true skill")
    left.legend()
    for name, marker in (("linear", "x"), ("auto", "o")):
        shown = [(o.accuracy["observed"][0], o.accuracy[name][0]) for o in found]
        right.scatter(*np.asarray(shown).T, s=18, alpha=0.7, marker=marker, label=name)
    right.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    right.set(xlabel="greedy accuracy of the last observed checkpoint", ylabel="of the prediction")
    right.legend()
    picture.savefig(path, dpi=150)
    plt.close(picture)
