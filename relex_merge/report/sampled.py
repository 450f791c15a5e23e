"""What a report says of a sample: standard errors, figures that it leaves out, and the verdict.

Every figure is computed again without each group of the sample's blocks (a jackknife, see
:mod:`relex_merge.trajectory.sampling.estimate`). A verdict hangs on the signs of a few figures;
where the 95 % interval of one of them holds 0, the sample is too small to tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np

from relex_merge.formatting import cell
from relex_merge.report.build import gather, summarise
from relex_merge.report.contents import Report, SampleEntry, TensorEntry
from relex_merge.report.entries import group_entries
from relex_merge.trajectory.backtests.assessment import assess
from relex_merge.trajectory.backtests.gaps import Gaps
from relex_merge.trajectory.backtests.groups import members
from relex_merge.trajectory.backtests.verdict import NOT_ENOUGH, NOTHING, UNSETTLED, margins
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.sampling.estimate import QUANTILE, Sampled, standard_error
from relex_merge.trajectory.sampling.plan import Held, SamplePlan
from relex_merge.trajectory.statistics import SeriesStatistics, at_rest_where_broken

LEAST_NUMBERS = 1024
LEAST_BLOCKS = 8
"""What a sample holds at least of a tensor, or of a group, to say something of it."""

Estimated: TypeAlias = Literal[
    "explained_variance",
    "r2",
    "straightness",
    "angle",
    "end_speed",
    "backtest_skill",
    "relative_update",
]
ESTIMATED: tuple[Estimated, ...] = get_args(Estimated)
_SETS: tuple[Literal["tensors", "layers", "kinds"], ...] = ("tensors", "layers", "kinds")


def is_enough(held: Held) -> bool:
    """Whether figures can be told from what a sample holds of something."""
    return held.whole or (held.numbers >= LEAST_NUMBERS and held.blocks >= LEAST_BLOCKS)


def sample_entry(plan: SamplePlan, settled: bool | None = None) -> SampleEntry:
    """Return the report's entry about a sample."""
    return {
        "share": plan.share,
        "numbers": plan.numbers,
        "of": plan.total,
        "blocks": len(plan.drawn),
        "seed": plan.seed,
        "settled": settled,
    }


def with_sample(
    report: Report,
    sampled: Sampled,
    parameters: Mapping[str, Parameters],
    observed: np.ndarray[tuple[int], np.dtype[np.bool_]],
) -> Report:
    """Return the report of a sampled series with its standard errors.

    Args:
        report: made from the estimates.
        sampled: the sample, over all checkpoints that were read.
        parameters: tensor → its own.
        observed: which of the checkpoints enter the fit, (T,).
    """

    def values(statistics: SeriesStatistics) -> _Values:
        return _values(report, statistics, parameters, observed)

    own = values(sampled.statistics())
    others = [values(replicate) for replicate in sampled.replicates()]
    held = sampled.plan.held
    groups, everything = _groups(list(report["tensors"])), _groups(list(held))
    gaps = report.setdefault("gaps", [])
    for part in _SETS:
        small: list[Held] = []
        for label, entry in report[part].items():
            names = groups[part][label]
            what = reduce(add, (held[name] for name in names))
            entry["numel"] = sum(held[name].of for name in everything[part].get(label, names))
            if is_enough(what):
                told = [other.entries[part][label] for other in others]
                entry["standard_errors"] = _errors(own.entries[part][label], told)
            else:
                small.append(what)
                _leave_out(entry)
        missing = max(len(everything[part]) - len(report[part]), 0)
        if small or missing:
            reason = _too_small(part, small, missing, len(everything[part]))
            gaps.append({"part": part, "reason": reason})
    report["model"]["numel"] = sampled.plan.total
    report["model"]["standard_errors"] = _errors(
        own.entries["model"]["model"], [other.entries["model"]["model"] for other in others]
    )
    report["summary"] = summarise(report["tensors"], report["model"])
    unclear = _unclear(own.margins, [other.margins for other in others])
    report["sample"] = sample_entry(sampled.plan, not unclear)
    verdict = report["verdict"]
    if unclear and verdict["verdict"] not in (NOT_ENOUGH, NOTHING):
        verdict["verdict"] = UNSETTLED
        verdict["reasons"].insert(0, _abstention(report, unclear))
    return report


@dataclass(frozen=True)
class _Values:
    """Figures of one estimate: set → label → entry; and what the verdict hangs on."""

    entries: Mapping[str, Mapping[str, TensorEntry]]
    margins: Mapping[str, float]


def _values(
    report: Report,
    everything: SeriesStatistics,
    parameters: Mapping[str, Parameters],
    observed: np.ndarray[tuple[int], np.dtype[np.bool_]],
) -> _Values:
    everything, _ = at_rest_where_broken(everything)
    statistics = everything.select(observed)
    holdout = None if observed.all() else everything
    gaps = Gaps()
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        tried = assess(
            statistics, parameters, report["target_step"], holdout, gaps.attempt, alone=True
        )
        groups = _groups(tried.names)
        entries = {
            part: group_entries(part, groups[part], statistics, tried, gaps) for part in groups
        }
        evidence = gather(tried, entries["model"]["model"], report["random_walk"], report["dtype"])
        return _Values(entries, margins(evidence))


def _groups(names: list[str]) -> dict[str, dict[str, list[str]]]:
    layers, kinds = members(names)
    return {
        "model": {"model": names},
        "tensors": {name: [name] for name in names},
        "layers": layers,
        "kinds": kinds,
    }


def _errors(own: TensorEntry, others: list[TensorEntry]) -> dict[str, float | None]:
    return {
        figure: standard_error(own[figure], [other[figure] for other in others])
        for figure in ESTIMATED
    }


def _leave_out(entry: TensorEntry) -> None:
    """Take out every figure that the sample is too small for."""
    for figure in (*ESTIMATED, "curvature_gain", "curvature_chance"):
        cast("dict[str, float | None]", entry)[figure] = None
    entry["baseline_skills"] = dict.fromkeys(entry["baseline_skills"])
    entry["spectrum"] = [None] * len(entry["spectrum"])
    entry["step_spectrum"] = [None] * len(entry["step_spectrum"])


def _too_small(part: str, small: list[Held], missing: int, total: int) -> str:
    least = min(small, key=lambda held: held.numbers, default=Held())
    least = Held() if missing else least
    return (
        f"sample too small for {len(small) + missing} of {total} {part}: the smallest part "
        f"is {least.numbers:,} numbers in {least.blocks} blocks, at least {LEAST_NUMBERS:,} in "
        f"{LEAST_BLOCKS} blocks are needed; give a larger --sample"
    )


def _unclear(own: Mapping[str, float], others: list[Mapping[str, float]]) -> list[str]:
    """Name the figures that the verdict hangs on and whose intervals hold 0."""
    found = []
    for name, value in own.items():
        error = standard_error(value, [other.get(name) for other in others])
        if error is None or abs(value) <= QUANTILE * error:
            found.append(name)
    return found


_WORDS = {
    "held_out": "the true skill at the held-out checkpoint",
    "control": "the backtest of a straight run stored like these files",
    "control_law": "what backtests of a straight run stored like these files lead one to expect",
    "backtest": "the backtest at your ratio",
    "law": "what all backtests together lead one to expect",
}


def _abstention(report: Report, unclear: list[str]) -> str:
    share = report["sample"]["share"]
    return (
        f"The sample of {share:.2g} of the numbers is too small: the sign of "
        f"{' and of '.join(_WORDS[name] for name in unclear)} is not clear, and the verdict hangs "
        f"on it. --sample {min(4 * share, 1):.1%} has half the error; --sample auto goes on until "
        "the signs are clear."
    )


def sample_lines(report: Report) -> list[str]:
    """Say in words that the figures are estimates; nothing where they are not."""
    sample = report.get("sample")
    if sample is None:
        return []
    errors = "; ± is one standard error" if "standard_errors" in report["model"] else ""
    return [
        f"sampled: {sample['share']:.2%} of the numbers ({sample['numbers']:,} in "
        f"{sample['blocks']:,} blocks){errors}",
        *sample_remarks(report),
    ]


def sample_remarks(report: Report) -> list[str]:
    """Say how far what was written is from what exact Gram matrices would have given."""
    error = report["sample"].get("output_error") if "sample" in report else None
    if error is None or not error["update"] > 0:
        return []
    return [
        "with weight vectors from the sample the written tensors are about "
        f"{error['error'] / error['update']:.2g} of the update away from the exact ones; rounding "
        f"to the output's dtype costs {error['rounding'] / error['update']:.2g} of it"
    ]


def error_cell(entry: Mapping[str, Any], figure: str, form: str) -> str:
    """Return a figure's standard error as a cell of a table; nothing where there is none."""
    error = entry.get("standard_errors", {}).get(figure)
    return "" if error is None else "±" + cell(error, form.lstrip("+"))
