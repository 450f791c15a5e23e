"""How often is the verdict right? On synthetic runs of known law, and on real ones.

    python -m tests.benchmarks.calibrate_verdict [--seeds 20] [--json FILE] [SERIES ...]

Every run is cut off after T checkpoints, judged from those alone, and then compared with the true
skill at the target: an ``extrapolate`` is right when that is positive, a ``do not extrapolate``
when it is not; the other two verdicts abstain. First a scan of the one threshold (how many standard
deviations make the forecast's sign clear) on the tuning seeds, then the verdict with the threshold
in use on seeds that had no part in choosing it. SERIES are whole real runs (folders with ``base``
and ``step_N``, or saved Gram matrices), each cut off at several T and judged on its own later
checkpoints.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from relex_merge.report.build import build_report, gather
from relex_merge.report.contents import Origin
from relex_merge.trajectory.backtests.assessment import assess
from relex_merge.trajectory.backtests.results import Evidence
from relex_merge.trajectory.backtests.verdict import (
    CAUTION,
    CLEAR,
    DO_NOT,
    EXTRAPOLATE,
    VERDICTS,
    decide,
)
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.statistics import SeriesStatistics, TensorStatistics
from tests.benchmarks.real_series import load
from tests.benchmarks.trajectories import LAWS, RATIOS, draw

SHORTEST = 1.8  # below this ratio there is little to gain and nothing to decide
LENGTHS = (10, 20, 40, 75)
TUNING, TESTING = 0, 1000  # first seeds
SCAN = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
ORIGIN: Origin = {  # not looked at
    "method": {"name": "relex", "rank": 1, "degree": 1, "window": None, "mode": "extrapolate"},
    "base": {"reference": "synthetic", "sha": None},
    "checkpoints": [],
    "versions": {},
}


@dataclass(frozen=True)
class Case:
    """One judgement. truth: ratio → true skill of the method there, from the real checkpoints."""

    family: str
    T: int
    ratio: float
    evidence: Evidence
    truth: dict[float, float]

    @property
    def true_skill(self) -> float:
        return self.truth[self.ratio]


def first(statistics: SeriesStatistics, T: int) -> SeriesStatistics:
    """The first T checkpoints of a series."""
    return SeriesStatistics(
        statistics.steps[:T],
        {
            name: TensorStatistics(t.gram[:T, :T], t.base_squared_norm, t.moved, t.numel)
            for name, t in statistics.tensors.items()
        },
    )


def judge(family: str, whole: SeriesStatistics, T: int, dtype: str) -> Iterator[Case]:
    """Cases for the first T checkpoints of ``whole`` and every later one as a target."""
    observed = first(whole, T)
    predictor = Parameters(float(whole.steps[-1]))
    later = assess(observed, predictor, predictor.target_step, whole).held_out
    if later is None:
        return
    rows = list(range(len(whole.tensors)))
    ratios = [round(float(ratio), 6) for ratio in later.ratio]
    truth = {ratio: later.pooled("method", p, rows) for p, ratio in enumerate(ratios)}
    for ratio, target in zip(ratios, whole.steps[T:], strict=True):
        if ratio < SHORTEST:
            continue
        tried = assess(observed, predictor, float(target), None)
        report = build_report(
            observed,
            predictor,
            ORIGIN,
            target_step=float(target),
            dtype=dtype,
        )
        evidence = gather(tried, report["model"], report["random_walk"], dtype)
        yield Case(family, T, ratio, evidence, truth)


def synthetic(seeds: Iterable[int]) -> list[Case]:
    """All families, lengths and ratios, one run per seed."""
    runs = (draw(family, T, seed) for seed in seeds for family in LAWS for T in LENGTHS)
    return [case for r in runs for case in judge(r.family, r.statistics, r.observed, r.dtype)]


def real(paths: Sequence[Path]) -> list[Case]:
    """Every series cut off after T checkpoints; targets thinned to about the usual ratios."""
    cases: list[Case] = []
    for path in paths:
        whole, dtype = load(path)
        for T in LENGTHS:
            if len(whole.steps) > T:
                wanted = whole.steps[T - 1] * np.asarray(RATIOS)
                places = np.searchsorted(whole.steps, wanted[wanted <= whole.steps[-1]])
                kept = [*range(T), *sorted({int(p) for p in places if p >= T})]
                cases += judge(path.name, _chosen(whole, kept), T, dtype)
    return cases


def _chosen(statistics: SeriesStatistics, kept: list[int]) -> SeriesStatistics:
    grid = np.ix_(kept, kept)
    return SeriesStatistics(
        statistics.steps[kept],
        {
            name: TensorStatistics(t.gram[grid], t.base_squared_norm, t.moved, t.numel)
            for name, t in statistics.tensors.items()
        },
    )


@dataclass(frozen=True)
class Score:
    """How often verdicts on n cases were right, as shares; None where there is no such case.

    extrapolate_right, do_not_right: of these verdicts. harmed: of the ``extrapolate`` verdicts, how
    many had true skill below −0.5; missed: of the ``do not``, how many above +0.3.
    caution_positive: of the ``caution`` verdicts, how many had positive true skill (one half is a
    coin flip). supported: how often the true skill was positive at the furthest target within the
    supported one. truly_positive: of all cases.
    """

    cases: int
    verdicts: dict[str, int]
    extrapolate_right: float | None
    do_not_right: float | None
    harmed: float | None
    missed: float | None
    caution_positive: float | None
    supported: float | None
    truly_positive: float | None


def share(flags: Sequence[bool]) -> float | None:
    return round(float(np.mean(flags)), 3) if flags else None


def score(cases: Sequence[Case], clear: float = CLEAR) -> Score:
    """Judge all cases with one threshold."""
    verdicts = [decide(case.evidence, clear=clear) for case in cases]
    skills = {
        word: [c.true_skill for c, v in zip(cases, verdicts, strict=True) if v.verdict == word]
        for word in VERDICTS
    }
    supported = [
        case.truth[max(within)] > 0
        for case, verdict in zip(cases, verdicts, strict=True)
        if verdict.supported_target is not None
        and (
            within := [
                r for r in case.truth if r * case.evidence.last_step <= verdict.supported_target
            ]
        )
    ]
    return Score(
        cases=len(cases),
        verdicts={word: len(values) for word, values in skills.items()},
        extrapolate_right=share([s > 0 for s in skills[EXTRAPOLATE]]),
        do_not_right=share([s <= 0 for s in skills[DO_NOT]]),
        harmed=share([s < -0.5 for s in skills[EXTRAPOLATE]]),
        missed=share([s > 0.3 for s in skills[DO_NOT]]),
        caution_positive=share([s > 0 for s in skills[CAUTION]]),
        supported=share(supported),
        truly_positive=share([case.true_skill > 0 for case in cases]),
    )


def row(label: str, s: Score) -> str:
    counts = "".join(f"{s.verdicts[word]:>8}" for word in VERDICTS)
    shares = (
        s.extrapolate_right,
        s.harmed,
        s.do_not_right,
        s.missed,
        s.caution_positive,
        s.supported,
    )
    return f"{label:<22}{s.cases:>6}{counts}" + "".join(
        f"{'–' if value is None else f'{value:.0%}':>10}" for value in shares
    )


HEADER = (
    f"{'':<22}{'cases':>6}{'extrap.':>8}{'caution':>8}{'do not':>8}{'unknown':>8}{'blind':>8}"
    f"{'nothing':>8}"
    f"{'ex.right':>10}{'harmed':>10}{'no right':>10}{'missed':>10}{'caution+':>10}{'supported':>10}"
)


def nearest(ratio: float) -> float:
    """The usual ratio that a real series came closest to."""
    return min(RATIOS, key=lambda usual: abs(np.log(usual / ratio)))


def table(cases: Sequence[Case]) -> dict[str, Score]:
    """Scores of all cases, by family, by T and by ratio."""
    parts: dict[str, list[Case]] = {"all": list(cases)}
    labels = (
        lambda case: case.family,
        lambda case: f"T = {case.T}",
        lambda case: f"ratio {nearest(case.ratio):.3g}×",
    )
    for label in labels:
        for case in sorted(cases, key=lambda case: (case.T, case.ratio)):
            parts.setdefault(label(case), []).append(case)
    return {label: score(part) for label, part in parts.items()}


RIVALS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "explained variance > 0.9": lambda figures: figures["explained_variance"] > 0.9,
    "EV > 0.9 and R² > 0.9": lambda f: f["explained_variance"] > 0.9 and f["r2"] > 0.9,
    "EV > 0.95 and R² > 0.98": lambda f: f["explained_variance"] > 0.95 and f["r2"] > 0.98,
    "straightness > 0.5": lambda figures: figures["straightness"] > 0.5,
    "same-ratio skill > 0": lambda figures: (figures["backtest_skill"] or -1) > 0,
}


def rivals(cases: Sequence[Case]) -> dict[str, dict[str, float | None]]:
    """Simpler rules on the same cases: how many each accepts and rejects, and how often rightly."""
    results = {}
    for label, accepts in RIVALS.items():
        yes = [c.true_skill for c in cases if accepts(c.evidence.figures)]
        no = [c.true_skill for c in cases if not accepts(c.evidence.figures)]
        results[label] = {
            "accepted": len(yes),
            "accepted_right": share([s > 0 for s in yes]),
            "harmed": share([s < -0.5 for s in yes]),
            "rejected_right": share([s <= 0 for s in no]),
        }
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("series", nargs="*", type=Path, help="whole real runs")
    parser.add_argument("--seeds", type=int, default=20, help="runs per family and length")
    parser.add_argument("--json", type=Path, help="write the scores there")
    options = parser.parse_args(arguments)
    tuning = synthetic(range(TUNING, TUNING + options.seeds))
    scan = {f"clear = {clear:g}": score(tuning, clear) for clear in SCAN}
    unseen = synthetic(range(TESTING, TESTING + options.seeds))
    tested = table(unseen)
    measured = table(real(options.series)) if options.series else {}
    results = {"scan": scan, "tested": tested, "real": measured}
    for title, scores in results.items():
        if scores:
            print(f"\n{title}\n{HEADER}")
            print("\n".join(row(label, s) for label, s in scores.items()))
    simpler = rivals(unseen)
    print("\nsimpler rules")
    for label, values in simpler.items():
        print(f"{label:<28}" + "  ".join(f"{key} {value}" for key, value in values.items()))
    if options.json:
        plain: dict[str, Any] = {
            k: {label: asdict(s) for label, s in v.items()} for k, v in results.items()
        }
        plain["simpler rules"] = simpler
        options.json.write_text(json.dumps(plain, indent=1, allow_nan=False))


if __name__ == "__main__":
    main()
