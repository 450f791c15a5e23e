"""What a user should confirm before a model is written: a target beyond what was measured."""

from __future__ import annotations

from relex_merge.report.contents import Report
from relex_merge.trajectory.backtests.verdict import BLIND, DO_NOT, NOT_ENOUGH

FAR = 1.5  # times the step that the backtests support


def doubts(report: Report) -> list[str]:
    """Return what speaks against writing what a report is about, a clause each; none mostly.

    The last observed checkpoint may always be written. Where forward passes or answers to tasks
    have been measured they alone decide; and where 16-bit files blind the weights, their backtests
    mean nothing.

    Args:
        report: with the verdict of the strongest evidence.
    """
    verdict, target = report["verdict"], report["target_step"]
    word, evidence = verdict["verdict"], verdict.get("evidence", "geometry")
    if report["method"].get("predictor") == "stay":
        return []
    found = []
    if word == DO_NOT:
        found.append(f"{_WITNESSES[evidence]} against it")
    if word == NOT_ENOUGH:
        found.append(f"{len(report['checkpoints'])} checkpoints are not enough to tell")
    if evidence != "geometry" or word == BLIND:
        return found
    supported = verdict.get("supported_target")
    if supported is not None and target is not None and target > FAR * supported:
        found.append(
            f"step {target:g} is {target / supported:.1f}× the furthest one that the backtests "
            f"support, {supported:g}"
        )
    skills = [trial["skill"]["method"] for trial in report["backtests"]["grid"]]
    if word != DO_NOT and skills and all(skill is not None and skill < 0 for skill in skills):
        found.append("in every backtest the prediction was worse than standing still")
    return found


_WITNESSES = {
    "geometry": "the backtests speak",
    "function": "its evaluation on text speaks",
    "labels": "its answers to tasks speak",
}
