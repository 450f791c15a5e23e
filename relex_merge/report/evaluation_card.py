"""The section of a model card that shows an evaluation: how it was made, tables, what they say."""

from __future__ import annotations

from typing import Any

from relex_merge.report import markdown
from relex_merge.report.candidates import Candidate
from relex_merge.report.evaluation import Evaluation, StatementEntry
from relex_merge.report.evaluation_tables import render_function, render_tasks

HARNESS = "[lm-evaluation-harness](https://github.com/EleutherAI/lm-evaluation-harness)"
WORDS = {"geometry": "Weights", "function": "Function", "labels": "Labels"}


def evaluation_section(
    evaluation: Evaluation, candidate: Candidate | None, figure: str | None
) -> str:
    """Return the text of the section, everything in it escaped that others wrote.

    Args:
        evaluation: of the series, local paths taken out.
        candidate: the model of the card, None where it was not measured.
        figure: file beside the card that shows the curves, if there is one.
    """
    safe: Evaluation = _escaped(evaluation)
    safe["tasks"] = {markdown.text(task): entries for task, entries in safe["tasks"].items()}
    parts = [
        _method(safe, candidate),
        render_function(safe),
        render_tasks(safe),
        f"![KL and scores against the target step]({figure})" if figure else "",
    ]
    return "\n\n".join(part.rstrip() for part in parts if part)


def statements_list(statements: list[StatementEntry]) -> list[str]:
    """Return lines of Markdown: what each kind of evidence says, and what it cannot see."""
    lines = []
    for statement in statements:
        word = statement["verdict"] or "cannot tell"
        lines.append(f"- **{WORDS[statement['evidence']]}**: {markdown.text(word)}")
        lines += [f"  {markdown.item(says)}" for says in statement["says"]]
        lines.append(f"  {markdown.item(statement['cannot_see'])}")
    return lines


def _method(evaluation: Evaluation, candidate: Candidate | None) -> str:
    """Say in a paragraph how the figures came about."""
    function = evaluation["function"]
    which = (
        "This model was not measured itself; others of the same series were."
        if candidate is None
        else f"This model is **{markdown.text(candidate.name)}** in the tables."
    )
    text = (
        f"Measured with `relex-merge evaluate` on {function['tokens']} response tokens of "
        f"{function['prompts']} prompts. {which} A functional backtest predicts the last observed "
        "checkpoint T from the first ones, up to h, and compares distributions over next tokens: "
        "skill = `1 − KL(p_T ‖ p_predicted) / KL(p_T ‖ p_h)`, 1 is perfect, 0 is standing still. "
        "KL is from the last observed checkpoint; standard errors are over prompts."
    )
    if evaluation["tasks"]:
        text += (
            f" Tasks were run by {HARNESS}, all models with the same prompts. Differences are from "
            "the last observed checkpoint, paired by question. A hash of each question puts it "
            "into the part that candidates were chosen by (choosing) or into the part that had no "
            "say in it (reported)."
        )
    return text


def _escaped(value: Any) -> Any:
    """Return plain values with every string escaped; keys are this package's own words."""
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return markdown.text(value) if isinstance(value, str) else value
