"""What a card says of the predictor: its law, and how it was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relex_merge.report import markdown, table

# How each predictor continues the coefficients; `stay` and `blend` have no curve of their own.
LAWS = {
    "sqrt": "The coefficients along it follow a·√s + b, continued to step {target}.",
    "power": "The coefficients along it follow a·s^p + b, p fitted, continued to step {target}.",
    "saturating": "The coefficients along it follow c·(1 − e^(−s/τ)), continued to step {target}.",
    "local": "The coefficients along it keep their latest slope up to step {target}.",
    "damped": "The coefficients along it follow a line to step {target}, held back by as much as "
    "backtests show it to overshoot.",
    "stay": "No continuation was expected to come closer to step {target} than the last observed "
    "checkpoint, so that is what is written.",
    "blend": "Several continuations to step {target} are averaged, with the weights that did best "
    "in backtests.",
}


def chosen(report: Mapping[str, Any]) -> list[str]:
    """How the predictor was chosen, and what spoke for each, where the recipe left it open."""
    choice = report.get("choice")
    if choice is None:
        return []
    reasons = " ".join(markdown.text(reason) for reason in choice["reasons"])
    said = f"The predictor was chosen by backtests: {table.chosen(choice)}. {reasons}"
    group = next(g for g in choice["groups"].values() if g["predictor"] == choice["predictor"])
    if not group["candidates"]:
        return [said]
    rows = [
        f"| {name} | "
        + " | ".join(markdown.number(c[k]) for k in ("expected", "low", "same_ratio"))
        + " |"
        for name, c in group["candidates"].items()
    ]
    head = "| Predictor | expected skill | likely at least | backtest |\n|---|---:|---:|---:|"
    return [said, "\n".join([head, *rows])]
