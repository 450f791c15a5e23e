"""The trust report as the plain dictionary that is ``relex_report.json``.

Everything in it follows from the Gram matrices and the recipe's parameters; the weights are not
read. A group of tensors, and the whole model, is its tensors laid end to end: figures come from the
sum of their G's, skills from the sums of their squared errors, each tensor continued along its own
directions as the method does it. Undefined figures are None, never NaN.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from relex_merge.trajectory.backtests.assessment import Assessment, assess
from relex_merge.trajectory.backtests.backtest import Backtests, backtests, plan
from relex_merge.trajectory.backtests.compared import method as as_predictor
from relex_merge.trajectory.backtests.figures import Figures, figures, fits
from relex_merge.trajectory.backtests.groups import members
from relex_merge.trajectory.backtests.random_walk import random_walk_gram
from relex_merge.trajectory.backtests.results import Evidence
from relex_merge.trajectory.backtests.verdict import decide
from relex_merge.trajectory.gram import Array, squared_error
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.predictors.history import before_cut
from relex_merge.trajectory.spectra import spectra
from relex_merge.trajectory.statistics import SeriesStatistics, TensorStatistics

SUMMARY = ("explained_variance", "r2", "straightness", "backtest_skill")


@dataclass(frozen=True)
class Subject:
    """Something the report describes: a tensor, or tensors laid end to end.

    rows: which tensors of the evaluation; total: the sum of their statistics.
    """

    rows: list[int]
    total: TensorStatistics
    parameters: Parameters


def build_report(
    statistics: SeriesStatistics,
    parameters: Mapping[str, Parameters] | Parameters,
    *,
    method: Mapping[str, Any],
    base: Mapping[str, Any],
    checkpoints: Sequence[Mapping[str, Any]],
    target_step: float,
    dtype: str,
    versions: Mapping[str, Any],
    holdout: SeriesStatistics | None = None,
) -> dict[str, Any]:
    """The report of ``statistics`` (observed checkpoints only) as JSON-ready plain values.

    parameters: one for all tensors, or one per name where filters make them differ; figures of
    groups use the most common. method, base, checkpoints and versions are copied as they are.
    dtype: of the checkpoints' files ("bfloat16"). holdout: statistics of the same tensors over the
    observed *and* later checkpoints, for true errors, which can overrule the verdict and change
    nothing else. Raises RelexError when there is no tensor or a held-out step is not beyond the
    window.
    """
    tried = assess(statistics, parameters, target_step, holdout)
    layers, kinds = members(tried.names)
    alone = {name: [name] for name in tried.names}
    tensors = _entries(alone, statistics, tried)
    model = _subject(tried.names, statistics, tried)
    whole = _entries({"model": tried.names}, statistics, tried)["model"]
    whole |= _coefficients(model, tried)
    walk = _random_walk(tried)
    return {
        "method": dict(method),
        "base": dict(base),
        "checkpoints": [dict(checkpoint) for checkpoint in checkpoints],
        "target_step": target_step,
        "ratio": tried.ratio,
        "steps": statistics.steps.tolist(),
        "dtype": dtype,
        "summary": _summary(tensors, whole),
        "verdict": asdict(decide(gather(tried, whole, walk, dtype))),
        "model": whole,
        "random_walk": walk,
        "backtests": _backtests(tried),
        "holdout": None if tried.held_out is None else _trials(tried.held_out, tried),
        "reconstruction": _reconstruction(tried),
        "layers": _entries(layers, statistics, tried),
        "kinds": _entries(kinds, statistics, tried),
        "tensors": tensors,
        "versions": dict(versions),
    }


def number(x: float) -> float | None:
    """A JSON number, or None for NaN and infinities."""
    return float(x) if np.isfinite(x) else None


def _numbers(x: Array) -> list[float | None]:
    return [number(value) for value in x]


def _subject(names: Sequence[str], statistics: SeriesStatistics, tried: Assessment) -> Subject:
    """The named tensors laid end to end."""
    rows = [tried.row[name] for name in names]
    total = reduce(add, (statistics.tensors[name] for name in names))
    return Subject(rows, total, tried.parameters[rows[0]] if len(rows) == 1 else tried.common)


def _entries(
    members_: Mapping[str, Sequence[str]], statistics: SeriesStatistics, tried: Assessment
) -> dict[str, dict[str, Any]]:
    """label → the figures of its tensors that are single numbers or short lists."""
    if not members_:
        return {}
    subjects = {label: _subject(names, statistics, tried) for label, names in members_.items()}
    every = list(subjects.values())
    found = figures(np.stack([subject.total.gram for subject in every]), tried.steps)
    shapes = {(subject.parameters.degree, subject.parameters.window) for subject in every}
    r2 = {
        (degree, window): fits(
            found.coefficients, tried.steps, tried.target, degree=degree, window=window
        ).r2
        for degree, window in shapes
    }
    return {
        label: _entry(subject, found, i, tried)
        | {"r2": number(r2[subject.parameters.degree, subject.parameters.window][i])}
        for i, (label, subject) in enumerate(subjects.items())
    }


def _entry(subject: Subject, found: Figures, i: int, tried: Assessment) -> dict[str, Any]:
    total, rank = subject.total, min(subject.parameters.rank, found.explained_variance.shape[1])
    update = np.sqrt(max(total.gram[-1, -1], 0.0))
    norm = np.sqrt(total.base_squared_norm)
    skills = _skills(tried.tests, tried.same_ratio, subject.rows, tried)
    return {
        "explained_variance": number(found.explained_variance[i, rank - 1]),
        "straightness": number(found.straightness[i]),
        "backtest_skill": skills.pop("method"),
        "baseline_skills": skills,
        "angle": number(found.angle[i]),
        "end_speed": number(found.curvature.end_speed[i]),
        "curvature_gain": number(found.curvature.gain[i]),
        "curvature_chance": number(found.curvature.chance[i]),
        "spectrum": _numbers(found.explained_variance[i]),
        "step_spectrum": _numbers(found.step_explained_variance[i]),
        "relative_update": number(update / norm) if norm > 0 else None,
        "moved": total.moved / total.numel,
        "numel": total.numel,
    }


def _coefficients(subject: Subject, tried: Assessment) -> dict[str, Any]:
    """The whole model's coefficient at every checkpoint, its fit, and the fit at the target."""
    p, c = subject.parameters, spectra(subject.total.gram[np.newaxis]).coefficients()
    fit = fits(c, tried.steps, tried.target, degree=p.degree, window=p.window)
    predicted = fit.predicted[0]
    if p.mode == "extrapolate" and p.predictor != "linear":
        predicted = p.weights(subject.total.gram, tried.steps) @ c[0]
    return {
        "coefficients": _numbers(c[0]),
        "fitted": _numbers(fit.fitted[0]),
        "predicted": number(predicted),
    }


def _skills(
    tests: Backtests, p: int | None, rows: Sequence[int], tried: Assessment
) -> dict[str, float | None]:
    """Predictor's name → pooled skill of ``rows`` in backtest p; all None where there is none."""
    if p is None:
        return dict.fromkeys(c.name for c in tried.compared)
    return {c.name: number(tests.pooled(c.name, p, rows)) for c in tried.compared}


def _trials(tests: Backtests, tried: Assessment) -> list[dict[str, Any]]:
    """One entry per backtest of the last checkpoint, or per held-out checkpoint."""
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
            "skill": _skills(tests, int(p), everything, tried),
        }
        for p in chosen
    ]


def _backtests(tried: Assessment) -> dict[str, Any]:
    p, law = tried.same_ratio, tried.law
    forecast = None
    if law is not None:
        ratios = np.geomspace(1.1, max(law.widest, 1.2), 30)  # no further than was tested
        told = tried.ratio is not None and tried.ratio <= law.widest * 1.05
        curve = [[float(r), law.skill(r, -1), law.skill(r), law.skill(r, 1)] for r in ratios]
        forecast = {
            "law": law.law.tolist(),
            "scatter": law.scatter,
            "widest_ratio": law.widest,
            "skill": law.skill(tried.ratio) if told and tried.ratio else None,
            "curve": curve,
        }
    return {
        "labels": {c.name: c.label for c in tried.compared},
        "cut": None if p is None else int(tried.tests.fitted[p]),
        "skill": _skills(tried.tests, p, list(range(len(tried.names))), tried),
        "grid": _trials(tried.tests, tried),
        "forecast": forecast,
    }


def _random_walk(tried: Assessment) -> dict[str, Any]:
    """What the same figures would be for a random walk observed at the same steps."""
    gram, common = random_walk_gram(tried.steps), tried.common
    found = figures(gram[np.newaxis], tried.steps)
    fit = fits(
        found.coefficients, tried.steps, tried.target, degree=common.degree, window=common.window
    )
    tests = backtests(
        gram[np.newaxis], tried.steps, plan(tried.steps, tried.ratio), [as_predictor([common])]
    )
    p, rank = tried.same_ratio, min(common.rank, found.explained_variance.shape[1])
    return {
        "explained_variance": number(found.explained_variance[0, rank - 1]),
        "r2": number(fit.r2[0]),
        "straightness": number(found.straightness[0]),
        "backtest_skill": None if p is None else number(tests.pooled("method", p, [0])),
        "angle": number(found.angle[0]),
        "spectrum": _numbers(found.explained_variance[0]),
        "step_spectrum": _numbers(found.step_explained_variance[0]),
    }


def _reconstruction(tried: Assessment) -> dict[str, Any] | None:
    """How far the rank-r reconstruction of an observed checkpoint is from the real one."""
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
        "relative_error": number(np.sqrt(error / update)) if update > 0 else None,
    }


def _summary(
    tensors: Mapping[str, Mapping[str, Any]], whole: Mapping[str, Any]
) -> dict[str, dict[str, float | None]]:
    """min, mean and max over the tensors for which the figure is defined, and the whole model."""
    summary = {}
    for key in SUMMARY:
        values = [entry[key] for entry in tensors.values() if entry[key] is not None]
        summary[key] = {
            "min": min(values, default=None),
            "mean": float(np.mean(values)) if values else None,
            "max": max(values, default=None),
            "model": whole[key],
        }
    return summary


def _predictor(tried: Assessment) -> str:
    """The predictor that the verdict is about: ``stay`` only where all tensors stay."""
    if tried.common.mode != "extrapolate":
        return "linear"
    moving = [p.predictor for p in tried.parameters if p.predictor != "stay"]
    return Counter(moving).most_common(1)[0][0] if moving else "stay"


def gather(
    tried: Assessment, whole: Mapping[str, Any], walk: Mapping[str, Any], dtype: str
) -> Evidence:
    """What the verdict is decided on. whole, walk: the report's "model" and "random_walk"."""
    held_out = [] if tried.held_out is None else _trials(tried.held_out, tried)
    return Evidence(
        target=tried.target,
        last_step=float(tried.steps[-1]),
        ratio=tried.ratio,
        checkpoints=len(tried.steps),
        cut=0 if tried.ratio is None else before_cut(tried.steps, tried.ratio),
        law=tried.law,
        figures=whole,
        walk=walk,
        dtype=dtype,
        held_out=[(trial["step"], trial["skill"]["method"]) for trial in held_out],
        predictor=_predictor(tried),
    )
