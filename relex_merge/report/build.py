"""The trust report, made from Gram matrices and the recipe's parameters; no weight is read.

A part whose arithmetic fails is a gap in the report: its figures are None, ``gaps`` says why, and
whatever else can be told is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from relex_merge.report.columns import legend
from relex_merge.report.contents import (
    BacktestsEntry,
    ForecastEntry,
    Measure,
    Origin,
    Range,
    ReconstructionEntry,
    Report,
    Summary,
    TensorEntry,
    TrialEntry,
    VerdictEntry,
    missing,
)
from relex_merge.report.entries import (
    group_entries,
    model_entry,
    numbers,
    skills,
    walk_entry,
)
from relex_merge.trajectory.backtests.assessment import Assessment, assess
from relex_merge.trajectory.backtests.backtest import Backtests
from relex_merge.trajectory.backtests.entries import ModelFigures, WalkFigures, json_number
from relex_merge.trajectory.backtests.gaps import Gaps
from relex_merge.trajectory.backtests.groups import members
from relex_merge.trajectory.backtests.results import Evidence, Verdict
from relex_merge.trajectory.backtests.rounding import Rounding, rounding_control
from relex_merge.trajectory.backtests.verdict import NOT_ENOUGH, decide
from relex_merge.trajectory.gram import squared_error
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.predictors.history import before_cut
from relex_merge.trajectory.statistics import LARGEST, SeriesStatistics, at_rest_where_broken

# Without these parts there is no verdict; the others are for orientation.
_EVIDENCE = ("tensors.", "model", "backtests.method", "backtests.forecast")


def build_report(
    statistics: SeriesStatistics,
    parameters: Mapping[str, Parameters] | Parameters,
    origin: Origin,
    *,
    target_step: float,
    dtype: str,
    holdout: SeriesStatistics | None = None,
    alone: bool = False,
) -> Report:
    """Make the report of a series as JSON-ready plain values.

    Args:
        statistics: of the observed checkpoints only.
        parameters: one for all tensors, or one per name where filters make them differ; figures of
            groups use the most common.
        origin: copied as it is.
        target_step: step that is extrapolated to.
        dtype: of the checkpoints' files ("bfloat16").
        holdout: statistics of the same tensors over the observed *and* later checkpoints, for true
            errors, which can overrule the verdict and change nothing else.
        alone: whether only the recipe's own predictor is backtested, which takes a fraction of the
            time.

    Raises:
        RelexError: there is no tensor, or a held-out step is not beyond the window.
    """
    gaps = Gaps()
    statistics, broken = at_rest_where_broken(statistics)
    if holdout is not None:
        holdout, later = at_rest_where_broken(holdout)
        broken = list(dict.fromkeys([*broken, *later]))
    if broken:
        more = f", as do those of {len(broken) - 1} other tensors" if len(broken) > 1 else ""
        reason = f"its Gram matrix holds NaN, infinity or numbers beyond {LARGEST:g}{more}"
        gaps.note(f"tensors.{broken[0]}", reason)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # undefined figures: None
        tried = assess(statistics, parameters, target_step, holdout, gaps.attempt, alone=alone)
        return _report(statistics, tried, origin, target_step, dtype, gaps)


def _report(
    statistics: SeriesStatistics,
    tried: Assessment,
    origin: Origin,
    target_step: float,
    dtype: str,
    gaps: Gaps,
) -> Report:
    layers, kinds = members(tried.names)
    alone = {name: [name] for name in tried.names}
    tensors = group_entries("tensors", alone, statistics, tried, gaps)
    whole = model_entry(statistics, tried, gaps)
    walk = walk_entry(tried, gaps)
    return {
        "method": origin["method"],
        "base": origin["base"],
        "checkpoints": origin["checkpoints"],
        "target_step": target_step,
        "ratio": tried.ratio,
        "steps": statistics.steps.tolist(),
        "dtype": dtype,
        "summary": summarise(tensors, whole),
        "verdict": _verdict(tried, whole, walk, dtype, gaps),
        "model": whole,
        "random_walk": walk,
        "backtests": _backtests(tried, gaps),
        "holdout": None if tried.held_out is None else _trials(tried.held_out, tried),
        "reconstruction": gaps.attempt("reconstruction", lambda: _reconstruction(tried), None),
        "layers": group_entries("layers", layers, statistics, tried, gaps),
        "kinds": group_entries("kinds", kinds, statistics, tried, gaps),
        "tensors": tensors,
        "gaps": gaps.found,
        "legend": legend(),
        "versions": origin["versions"],
    }


def _trials(tests: Backtests, tried: Assessment) -> list[TrialEntry]:
    """Make one entry per backtest of the last checkpoint, or per held-out checkpoint."""
    everything = list(range(len(tried.names)))
    held_out = tests is tried.held_out
    chosen = range(len(tests.target)) if held_out else tests.last()
    steps = tests.steps
    return [
        {
            "checkpoints": int(tests.fitted[p]),
            "last_fitted_step": float(steps[tests.fitted[p] - 1]),
            "step": float(steps[tests.target[p]]),
            "ratio": float(tests.ratio[p]),
            "skill": skills(tests, int(p), everything, tried),
        }
        for p in chosen
    ]


def _backtests(tried: Assessment, gaps: Gaps) -> BacktestsEntry:
    p = tried.same_ratio
    return {
        "labels": {c.name: c.label for c in tried.compared},
        "cut": None if p is None else int(tried.tests.fitted[p]),
        "skill": skills(tried.tests, p, list(range(len(tried.names))), tried),
        "grid": _trials(tried.tests, tried),
        "forecast": gaps.attempt("backtests.forecast", lambda: _forecast(tried), None),
    }


def _forecast(tried: Assessment) -> ForecastEntry | None:
    law = tried.law
    if law is None:
        return None
    ratios = np.geomspace(1.1, max(law.widest, 1.2), 30)  # no further than was tested
    told = tried.ratio is not None and tried.ratio <= law.widest * 1.05
    return {
        "law": numbers(law.law),
        "scatter": json_number(law.scatter),
        "widest_ratio": law.widest,
        "skill": json_number(law.skill(tried.ratio)) if told and tried.ratio else None,
        "curve": [
            [float(r), *(json_number(law.skill(r, deviations)) for deviations in (-1, 0, 1))]
            for r in ratios
        ],
    }


def _reconstruction(tried: Assessment) -> ReconstructionEntry | None:
    """Tell how far the rank-r reconstruction of an observed checkpoint is from the real one."""
    if tried.common.mode != "reconstruct":
        return None
    j = int(np.flatnonzero(tried.steps == tried.target)[0])
    error = sum(
        squared_error(G, p.weights(G, tried.steps), j)
        for G, p in zip(tried.grams, tried.parameters, strict=True)
    )
    update = float(tried.grams[:, j, j].sum())
    return {
        "step": tried.target,
        "relative_error": json_number(np.sqrt(error / update)) if update > 0 else None,
    }


def summarise(tensors: Mapping[str, TensorEntry], whole: TensorEntry) -> Summary:
    """Find min, mean and max over tensors where a figure is defined, and the whole model's."""

    def over(key: Measure) -> Range:
        values = [v for entry in tensors.values() if (v := entry[key]) is not None]
        return {
            "min": min(values, default=None),
            "mean": json_number(float(np.mean(values))) if values else None,
            "max": max(values, default=None),
            "model": whole[key],
        }

    return {
        "explained_variance": over("explained_variance"),
        "r2": over("r2"),
        "straightness": over("straightness"),
        "backtest_skill": over("backtest_skill"),
    }


def _verdict(
    tried: Assessment, whole: ModelFigures, walk: WalkFigures, dtype: str, gaps: Gaps
) -> VerdictEntry:
    """Decide, or say which of the evidence is missing."""
    absent = [f"{missing(gap)}." for gap in gaps.found if gap["part"].startswith(_EVIDENCE)]
    found = Verdict(NOT_ENOUGH, absent, None)
    if not absent:
        evidence = gather(tried, whole, walk, dtype)
        found = gaps.attempt("verdict", lambda: decide(evidence), found)
    return {
        "verdict": found.verdict,
        "reasons": found.reasons or [f"{missing(gaps.found[-1])}."],
        "supported_target": json_number(found.supported_target),
    }


def _predictor(tried: Assessment) -> str:
    """Name the predictor that the verdict is about: ``stay`` only where all tensors stay."""
    if tried.common.mode != "extrapolate":
        return "linear"
    moving = [p.predictor for p in tried.parameters if p.predictor != "stay"]
    return Counter(moving).most_common(1)[0][0] if moving else "stay"


def gather(tried: Assessment, whole: ModelFigures, walk: WalkFigures, dtype: str) -> Evidence:
    """Collect what the verdict is decided on.

    Args:
        tried: the evaluation.
        whole: the report's "model".
        walk: the report's "random_walk".
        dtype: of the checkpoints' files.
    """
    held_out = [] if tried.held_out is None else _trials(tried.held_out, tried)
    G = tried.grams.sum(axis=0)
    return Evidence(
        target=tried.target,
        last_step=float(tried.steps[-1]),
        ratio=tried.ratio,
        checkpoints=len(tried.steps),
        cut=_cut(tried),
        law=tried.law,
        figures=whole,
        walk=walk,
        dtype=dtype,
        held_out=[(trial["step"], trial["skill"]["method"]) for trial in held_out],
        predictor=_predictor(tried),
        steps=tried.steps.tolist(),
        distances=np.sqrt(np.maximum(G.diagonal(), 0.0)).tolist(),
        path=float(np.sqrt(max(G[0, 0] + G[-1, -1] - 2 * G[0, -1], 0.0))),
        rounding=_rounding(tried, dtype),
    )


def _cut(tried: Assessment) -> int:
    """Count the checkpoints that lie before s_T / ratio; 0 where nothing is extrapolated."""
    return 0 if tried.ratio is None else before_cut(tried.steps, tried.ratio)


def _rounding(tried: Assessment, dtype: str) -> Rounding | None:
    """Backtest a straight run that is stored as the checkpoints are."""
    if tried.ratio is None:
        return None
    return rounding_control(
        tried.grams[:, -1, -1],
        tried.base_squared_norms,
        tried.steps,
        dtype,
        tried.common,
        tried.ratio,
    )
