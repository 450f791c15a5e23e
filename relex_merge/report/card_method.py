"""How the arithmetic of an output is described on its card, with its sources."""

from __future__ import annotations

from relex_merge.formatting import format_step, significant
from relex_merge.report import markdown, table
from relex_merge.report.contents import Method
from relex_merge.trajectory.backtests.entries import ChoiceEntry

MERGEKIT_URL = "https://github.com/arcee-ai/mergekit"
PAPER_URL = "https://arxiv.org/abs/2605.21468"
PAPER = (
    "RELEX, [You Only Need Minimal RLVR Training: Extrapolating LLMs via Rank-1 Trajectories]"
    f"({PAPER_URL}), arXiv 2605.21468"
)

# How each predictor continues the coefficients; `stay` has no curve of its own.
LAWS = {
    "sqrt": "The coefficients along it follow a·√s + b, continued to step {target}.",
    "power": "The coefficients along it follow a·s^p + b, p fitted, continued to step {target}.",
    "saturating": "The coefficients along it follow c·(1 − e^(−s/τ)), continued to step {target}.",
    "local": "The coefficients along it keep their latest slope up to step {target}.",
    "damped": "The coefficients along it follow a line to step {target}, held back by as much as "
    "backtests show it to overshoot.",
    "stay": "No continuation was expected to come closer to step {target} than the last observed "
    "checkpoint, so that is what is written.",
}

STARTS = {
    "line": "the fit at the last observed step",
    "last": "the last observed checkpoint",
    "average": "the mean of the checkpoints in the window",
}

OTHER_LAW = (
    "The coefficients along it are continued to step {target} by the predictor {law}, which this "
    "version does not have."
)


def method_section(method: Method, target_step: float, choice: ChoiceEntry | None) -> str:
    """Describe the arithmetic in a paragraph, with its source, and how a predictor was chosen.

    Args:
        method: the parameters.
        target_step: of the output.
        choice: how the predictor was found, where the recipe left it open.
    """
    rank = significant(method["rank"])
    line = "line" if rank == "1" else f"{rank}-dimensional subspace"
    start = (
        "For every weight tensor θ the updates θ_t − θ₀ of the observed checkpoints from the base "
        f"are decomposed by an SVD, and their leading {line} is kept. "
    )
    if method["mode"] == "reconstruct":
        rest = "The tensor written is the observed update of that step, projected on it."
    elif (law := method.get("predictor", "linear")) != "linear":
        target = format_step(target_step)
        rest = LAWS.get(law, OTHER_LAW).format(target=target, law=markdown.code(law))
    else:
        fitted = "all observed steps" if method["window"] is None else _window(method["window"])
        rest = (
            f"The coefficients along it are fitted over {fitted} with a polynomial of degree "
            f"{significant(method['degree'])} by least squares, continued to step "
            f"{format_step(target_step)} and added back to the base."
        )
    anchor, scale = method.get("anchor", "line"), method.get("scale", 1.0)
    if anchor != "line" or scale != 1:
        rest += (
            f" Of that, the model is {STARTS.get(anchor, markdown.code(anchor))} plus "
            f"{significant(scale)} × the displacement from the last observed step to the target."
        )
    said = "".join(f"\n\n{line}" for line in _chosen(choice)) if choice else ""
    return f"{start}{rest} Source: {PAPER}. Merged with [mergekit]({MERGEKIT_URL}).{said}"


def _window(window: float) -> str:
    return f"the last {significant(window)} checkpoints"


def _chosen(choice: ChoiceEntry) -> list[str]:
    """Tell how the predictor was chosen, and what spoke for each."""
    reasons = " ".join(markdown.text(reason) for reason in choice["reasons"])
    said = f"The predictor was chosen by backtests: {table.chosen(choice)}. {reasons}"
    group = next(g for g in choice["groups"].values() if g["predictor"] == choice["predictor"])
    if not group["candidates"]:
        return [said]
    rows = [
        f"| {name} | "
        + " | ".join(significant(x) for x in (c["expected"], c["low"], c["same_ratio"]))
        + " |"
        for name, c in group["candidates"].items()
    ]
    head = "| Predictor | expected skill | likely at least | backtest |\n|---|---:|---:|---:|"
    return [said, "\n".join([head, *rows])]
