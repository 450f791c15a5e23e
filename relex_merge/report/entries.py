"""The figures of tensors, of groups of them and of the whole model, as entries of the report.

A group of tensors, and the whole model, is its tensors laid end to end: figures come from the sum
of their G's, skills from the sums of their squared errors, each tensor continued along its own
directions as the method does it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from relex_merge.report.contents import ModelEntry, Skills, TensorEntry, WalkEntry
from relex_merge.report.written import Written, written
from relex_merge.trajectory.backtests.assessment import Assessment
from relex_merge.trajectory.backtests.backtest import Backtests, backtests, plan
from relex_merge.trajectory.backtests.compared import method as as_predictor
from relex_merge.trajectory.backtests.entries import json_number
from relex_merge.trajectory.backtests.figures import RANKS, Curvature, Figures, figures, fits
from relex_merge.trajectory.backtests.gaps import Gaps
from relex_merge.trajectory.backtests.random_walk import random_walk_gram
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.spectra import spectra
from relex_merge.trajectory.statistics import SeriesStatistics, TensorStatistics


@dataclass(frozen=True)
class Subject:
    """Something the report describes: a tensor, or tensors laid end to end.

    Attributes:
        rows: which tensors of the evaluation.
        total: the sum of their statistics.
        parameters: its own, or those of most tensors.
    """

    rows: list[int]
    total: TensorStatistics
    parameters: Parameters


def numbers(x: Array) -> list[float | None]:
    """Return ``x`` (n,) as JSON numbers, None where one is not finite."""
    return [json_number(float(value)) for value in x]


def group_entries(
    part: str,
    groups: Mapping[str, Sequence[str]],
    statistics: SeriesStatistics,
    tried: Assessment,
    gaps: Gaps,
) -> dict[str, TensorEntry]:
    """Describe groups of tensors by their figures.

    Args:
        part: the report's name for this set of groups, for a gap.
        groups: label → names of the tensors; one alone is a group too.
        statistics: of the observed checkpoints.
        tried: the evaluation of the same tensors.
        gaps: where it is noted that the figures cannot be computed; they are None then.
    """
    if not groups:
        return {}
    subjects = {label: _subject(names, statistics, tried) for label, names in groups.items()}
    every = list(subjects.values())
    undefined = _undefined(len(every), len(tried.steps))
    found, r2 = gaps.attempt(part, lambda: _figures(every, tried), undefined)
    return {
        label: _entry(subject, found, i, float(r2[i]), tried)
        for i, (label, subject) in enumerate(subjects.items())
    }


def model_entry(statistics: SeriesStatistics, tried: Assessment, gaps: Gaps) -> ModelEntry:
    """Describe the whole model, by its coefficient at every checkpoint and at the target too."""
    entry = group_entries("model", {"model": tried.names}, statistics, tried, gaps)["model"]
    total, p, T = _subject(tried.names, statistics, tried).total, tried.common, len(tried.steps)

    def coefficients() -> tuple[Array, Array, Written]:
        c = spectra(total.gram[np.newaxis]).coefficients()
        fit = fits(c, tried.steps, tried.target, degree=p.degree, window=p.window)
        there = written(tried.grams, tried.steps, tried.parameters, c[0], tried.target)
        return c[0], fit.fitted[0], there

    nothing = np.full(T, np.nan)
    undefined = nothing, nothing, Written(np.nan, np.empty((0, 2)))
    c, fitted, there = gaps.attempt("model.coefficients", coefficients, undefined)
    return {
        **entry,
        "coefficients": numbers(c),
        "fitted": numbers(fitted),
        "predicted": json_number(there.predicted),
        "curve": [numbers(point) for point in there.curve],
    }


def walk_entry(tried: Assessment, gaps: Gaps) -> WalkEntry:
    """Describe a random walk that was observed at the same steps, by the same figures."""
    undefined = numbers(np.full(min(len(tried.steps), RANKS), np.nan))
    nothing: WalkEntry = {
        "explained_variance": None,
        "r2": None,
        "straightness": None,
        "backtest_skill": None,
        "angle": None,
        "spectrum": undefined,
        "step_spectrum": undefined,
    }
    return gaps.attempt("random_walk", lambda: _walk(tried), nothing)


def skills(tests: Backtests, p: int | None, rows: Sequence[int], tried: Assessment) -> Skills:
    """Return the pooled skill of ``rows`` in backtest p by predictor; None without a p."""
    if p is None:
        return dict.fromkeys(c.name for c in tried.compared)
    return {c.name: json_number(tests.pooled(c.name, p, rows)) for c in tried.compared}


def _subject(names: Sequence[str], statistics: SeriesStatistics, tried: Assessment) -> Subject:
    """Lay the named tensors end to end."""
    rows = [tried.row[name] for name in names]
    total = reduce(add, (statistics.tensors[name] for name in names))
    return Subject(rows, total, tried.parameters[rows[0]] if len(rows) == 1 else tried.common)


def _figures(subjects: Sequence[Subject], tried: Assessment) -> tuple[Figures, Array]:
    """Find the figures of N subjects, and R² (N,) of the fit that their parameters ask for."""
    found = figures(np.stack([subject.total.gram for subject in subjects]), tried.steps)
    shapes = {(subject.parameters.degree, subject.parameters.window) for subject in subjects}
    r2 = {
        (degree, window): fits(
            found.coefficients, tried.steps, tried.target, degree=degree, window=window
        ).r2
        for degree, window in shapes
    }
    own = [r2[s.parameters.degree, s.parameters.window][i] for i, s in enumerate(subjects)]
    return found, np.asarray(own)


def _undefined(n: int, T: int) -> tuple[Figures, Array]:
    """Make what stands in the place of n subjects' figures where they cannot be computed."""
    single, spectrum = np.full(n, np.nan), np.full((n, min(T, RANKS)), np.nan)
    curvature = Curvature(single, single, single)
    c = np.full((n, T), np.nan)
    return Figures(spectrum, spectrum, c, single, single, curvature), single


def _entry(subject: Subject, found: Figures, i: int, r2: float, tried: Assessment) -> TensorEntry:
    total, rank = subject.total, min(subject.parameters.rank, found.explained_variance.shape[1])
    update = np.sqrt(max(total.gram[-1, -1], 0.0))
    norm = np.sqrt(total.base_squared_norm)
    others = skills(tried.tests, tried.same_ratio, subject.rows, tried)
    own = others.pop("method")
    return {
        "explained_variance": json_number(found.explained_variance[i, rank - 1]),
        "straightness": json_number(found.straightness[i]),
        "backtest_skill": own,
        "baseline_skills": others,
        "angle": json_number(found.angle[i]),
        "end_speed": json_number(found.curvature.end_speed[i]),
        "curvature_gain": json_number(found.curvature.gain[i]),
        "curvature_chance": json_number(found.curvature.chance[i]),
        "spectrum": numbers(found.explained_variance[i]),
        "step_spectrum": numbers(found.step_explained_variance[i]),
        "relative_update": json_number(update / norm) if norm > 0 else None,
        "moved": total.moved / total.numel,
        "numel": total.numel,
        "r2": json_number(r2),
    }


def _walk(tried: Assessment) -> WalkEntry:
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
        "explained_variance": json_number(found.explained_variance[0, rank - 1]),
        "r2": json_number(fit.r2[0]),
        "straightness": json_number(found.straightness[0]),
        "backtest_skill": None if p is None else json_number(tests.pooled("method", p, [0])),
        "angle": json_number(found.angle[0]),
        "spectrum": numbers(found.explained_variance[0]),
        "step_spectrum": numbers(found.step_explained_variance[0]),
    }
