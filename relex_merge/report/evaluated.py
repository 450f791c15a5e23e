"""A report that an evaluation speaks in: the verdict follows the strongest evidence there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from relex_merge.report.candidates import Candidate
from relex_merge.report.contents import Report
from relex_merge.report.difference import Difference, combined
from relex_merge.report.estimate import Estimate
from relex_merge.report.evaluation import Evaluation, ModelEntry, StatementEntry, TaskEntry
from relex_merge.report.final_verdict import FinalVerdict, Geometry, Statement, decide
from relex_merge.report.functional import Backtest, Function, skill_at


@dataclass(frozen=True)
class Found:
    """What an evaluation found about one candidate; None for what it did not measure."""

    function: Function | None
    labels: Difference | None


def with_evaluation(report: Report, evaluation: Evaluation, mark: str) -> Report:
    """Return the report with an evaluation, and the verdict that follows from both.

    Args:
        report: of weights alone, of the model that is written.
        evaluation: of the same series.
        mark: the recipe's (:func:`relex_merge.recipe.mark.method_mark`).
    """
    verdict = report["verdict"]
    geometry = Geometry(verdict["verdict"], verdict["reasons"])
    found, remark = _about_this(report, evaluation, mark)
    final = decide(geometry, found.function, found.labels)
    return {
        **report,
        "verdict": {
            **verdict,
            "verdict": final.verdict,
            "reasons": [*final.reasons, *([remark] if remark else [])],
            "evidence": final.evidence,
            "statements": statement_entries(final),
        },
        "evaluation": evaluation,
    }


def statement_entries(verdict: FinalVerdict) -> list[StatementEntry]:
    """Return what each kind of evidence says as plain values."""
    return [_statement_entry(statement) for statement in verdict.statements]


def written(report: Report) -> Candidate | None:
    """Return which candidate a report is about; None where nothing is extrapolated."""
    method, choice = report["method"], report.get("choice")
    if method["mode"] != "extrapolate" or (choice is not None and choice["stops"]):
        return None
    return Candidate(report["target_step"], method.get("scale", 1.0), method.get("anchor", "line"))


def find(evaluation: Evaluation, candidate: Candidate) -> Found:
    """Return what an evaluation found about a candidate, on reported questions where it has tasks.

    Args:
        evaluation: of any candidates.
        candidate: target step, scale and anchor, as they stand in the evaluation.
    """
    ratio = candidate.target_step / evaluation["last_step"]
    function = None
    for entry in evaluation["function"]["candidates"]:
        if is_of(entry, candidate):
            kl = Estimate(entry["kl"], entry["stderr"])
            function = Function(kl, ratio, skill_at(_backtests(evaluation), ratio))
    tasks = [_difference(entry) for entry in reported(evaluation, candidate).values()]
    known = [difference for difference in tasks if difference is not None]
    return Found(function, combined(known) if known else None)


def reported(evaluation: Evaluation, candidate: Candidate) -> Mapping[str, TaskEntry]:
    """Return task → a candidate's scores on the questions that had no part in choosing it."""
    return {
        task: entry
        for task, entries in evaluation["tasks"].items()
        for entry in entries
        if entry["split"] == "reported" and is_of(entry, candidate)
    }


def is_of(entry: ModelEntry, candidate: Candidate) -> bool:
    """Tell whether an entry is about a candidate."""
    return (entry.get("target_step"), entry.get("scale"), entry.get("anchor")) == (
        candidate.target_step,
        candidate.scale,
        candidate.anchor,
    )


def measured(report: Report) -> Candidate | None:
    """Return the candidate that a report is about, where its evaluation measured it."""
    statements = report["verdict"].get("statements", [])
    if all(statement["evidence"] == "geometry" for statement in statements):
        return None
    return written(report)


def _about_this(report: Report, evaluation: Evaluation, mark: str) -> tuple[Found, str | None]:
    """Return what was found about the model that is written, or why nothing was."""
    candidate, nothing = written(report), Found(None, None)
    if candidate is None:
        return nothing, "Nothing is extrapolated, so the evaluation has no part in the verdict."
    if evaluation["settings"].get("method", mark) != mark:
        return nothing, (
            "The evaluation is of this series with another recipe (other parameters than target "
            "step, scale and anchor), so it says nothing about this model; evaluate this recipe."
        )
    found = find(evaluation, candidate)
    if found == nothing:
        names = ", ".join(entry["model"] for entry in evaluation["function"]["candidates"])
        return nothing, (
            f"The evaluation has nothing about {candidate.name}, so this is the verdict of the "
            f"weights; it measured {names}. Add --target-step {candidate.target_step:g} --scale "
            f"{candidate.scale:g} --anchor {candidate.anchor} to `relex-merge evaluate`."
        )
    return found, None


def _backtests(evaluation: Evaluation) -> list[Backtest]:
    return [
        Backtest(
            test["ratio"],
            None if test["skill"] is None else Estimate(test["skill"], test["stderr"]),
        )
        for test in evaluation["function"]["backtests"]
    ]


def _difference(entry: TaskEntry) -> Difference | None:
    if entry["difference"] is None or entry["interval"] is None:
        return None
    low, high = entry["interval"]
    return Difference(entry["difference"], entry["difference_stderr"], low, high, entry["n"])


def _statement_entry(statement: Statement) -> StatementEntry:
    return {
        "evidence": statement.evidence,
        "verdict": statement.verdict,
        "says": list(statement.says),
        "cannot_see": statement.cannot_see,
    }
