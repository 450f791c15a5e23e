"""The model card of an extrapolated model: its README.md, front matter first.

The card is rendered from ``relex_report.json`` and the recipe alone. Everything in it that others
wrote (references, reasons, the recipe) is escaped, and passes ``scrub`` before, so that no path of
the machine that made the card is in it.
"""

from __future__ import annotations

from typing import Literal, TypedDict
from urllib.parse import quote

import yaml

from relex_merge.formatting import format_step, significant
from relex_merge.hub.references import HUB, hub_id, hub_reference
from relex_merge.report import markdown, table
from relex_merge.report.contents import (
    AdapterEntry,
    CheckpointReference,
    Measure,
    Method,
    Reference,
    Report,
    Summary,
    VerdictEntry,
    missing,
)
from relex_merge.report.evaluated import measured
from relex_merge.report.evaluation import Evaluation
from relex_merge.report.evaluation_card import evaluation_section, statements_list
from relex_merge.report.front_matter import License, front_matter
from relex_merge.report.hub_results import eval_results
from relex_merge.report.local_paths import local_names, scrub, scrub_yaml
from relex_merge.report.snippet import placeholder_snippet
from relex_merge.trajectory.backtests.entries import ChoiceEntry
from relex_merge.trajectory.backtests.gaps import Gap

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

OTHER_LAW = (
    "The coefficients along it are continued to step {target} by the predictor {law}, which this "
    "version does not have."
)

_MEASURES: tuple[tuple[Measure, str], ...] = (
    ("explained_variance", "Explained variance"),
    ("r2", "R² of the fit"),
    ("straightness", "Straightness"),
    ("backtest_skill", "Backtest skill"),
)
_COLUMNS: tuple[Literal["min", "mean", "max", "model"], ...] = ("min", "mean", "max", "model")


class _Shown(TypedDict):
    """The parts of a report that its card shows."""

    method: Method
    base: Reference
    checkpoints: list[CheckpointReference]
    target_step: float
    summary: Summary
    verdict: VerdictEntry
    versions: dict[str, str]
    choice: ChoiceEntry | None
    gaps: list[Gap]
    evaluation: Evaluation | None


def model_card(
    report: Report,
    recipe_yaml: str,
    *,
    name: str,
    license: License | None = None,
    pipeline_tag: str | None = "text-generation",
    figure: str | None = None,
    evaluation_figure: str | None = None,
) -> str:
    """Write the README.md of an output.

    Args:
        report: what ``relex_report.json`` holds.
        recipe_yaml: the expanded recipe, as in ``mergekit_config.yml``.
        name: the card's title.
        license: what ``base_license`` read from the base's card.
        pipeline_tag: the Hub's task id, or None where it is not known.
        figure: file beside the card that shows the report, if there is one.
        evaluation_figure: the same for the curves of the evaluation.
    """
    adapter = report.get("adapter")
    found = _shown(report)
    names = local_names(found, yaml.safe_load(recipe_yaml))
    shown = scrub(found, names)
    base = hub_id(report["base"]["reference"])
    title = scrub(name, names)
    metadata = front_matter(
        base, license, pipeline_tag, adapter is not None, results=eval_results(report), name=title
    )
    evaluation = shown["evaluation"]
    sections = [
        f"---\n{metadata}\n---",
        f"# {markdown.text(title)}",
        _opening(shown),
        markdown.fenced(placeholder_snippet(report), "python"),
        *([_adapter(adapter)] if adapter else []),
        "## What was observed",
        _observed(shown),
        "## Method",
        _method(shown),
        "## How far to trust it",
        _trust(shown),
        *([f"![Trust report]({figure})"] if figure else []),
        *(
            ["## Evaluation", evaluation_section(evaluation, measured(report), evaluation_figure)]
            if evaluation
            else []
        ),
        "## Recipe",
        f"Run it with `relex-merge run recipe.yml OUT`, a front end of [mergekit]({MERGEKIT_URL}).",
        markdown.fenced(scrub_yaml(recipe_yaml, names), "yaml"),
        "Versions: "
        + ", ".join(f"{markdown.text(k)} {markdown.text(v)}" for k, v in shown["versions"].items()),
    ]
    return "\n\n".join(sections) + "\n"


def _shown(report: Report) -> _Shown:
    return {
        "method": report["method"],
        "base": report["base"],
        "checkpoints": report["checkpoints"],
        "target_step": report["target_step"],
        "summary": report["summary"],
        "verdict": report["verdict"],
        "versions": report["versions"],
        "choice": report.get("choice"),
        "gaps": report.get("gaps", []),
        "evaluation": report.get("evaluation"),
    }


def _adapter(adapter: AdapterEntry) -> str:
    """Say in a paragraph what of the update the factors hold."""
    return (
        f"This is a LoRA adapter of rank {adapter['rank']} on {len(adapter['modules'])} modules. "
        f"It holds {1 - adapter['discarded']:.2%} of the energy ‖θ − θ₀‖² of the update: the "
        "truncated SVD of each weight's, which is the best approximation of that rank."
    )


def _opening(report: _Shown) -> str:
    """Say in a paragraph what the model is."""
    base = markdown.code(report["base"]["reference"])
    untrained = "" if _reconstructs(report) else " It was not trained past the last of them."
    return (
        f"{_what(report)}, of an RLVR run from {base}; made with relex-merge from "
        f"{_observed_steps(report)}.{untrained}"
    )


def _reconstructs(report: _Shown) -> bool:
    return report["method"]["mode"] == "reconstruct"


def _what(report: _Shown) -> str:
    """Name the prediction."""
    what = "Reconstruction of observed" if _reconstructs(report) else "Extrapolation to"
    rank = significant(report["method"]["rank"])
    return f"{what} step {format_step(report['target_step'])}, rank {rank}"


def _observed_steps(report: _Shown) -> str:
    """Name the number of checkpoints and the span of their steps."""
    steps = [item["step"] for item in report["checkpoints"]]
    return (
        f"{len(steps)} observed checkpoints, steps "
        f"{format_step(min(steps))} to {format_step(max(steps))}"
    )


def _observed(report: _Shown) -> str:
    """Tabulate base, checkpoints, target and share; list every checkpoint, folded."""
    base = report["base"]
    rows = [
        f"| Base | {_reference(base)} |",
        f"| Checkpoints | {_observed_steps(report)} |",
        f"| Target | step {format_step(report['target_step'])} |",
        f"| Share of the run | {_share(report)} |",
    ]
    listed = [
        f"| {format_step(item['step'])} | {_reference(item)} |" for item in report["checkpoints"]
    ]
    return "\n".join(
        [
            "| | |\n|---|---|",
            *rows,
            "\n<details>\n<summary>Every checkpoint, with the commit that was read</summary>\n",
            "| Step | Checkpoint |\n|---:|---|",
            *listed,
            "\n</details>",
        ]
    )


def _share(report: _Shown) -> str:
    """Say which share of the run was observed and what that saves."""
    last, target = max(item["step"] for item in report["checkpoints"]), report["target_step"]
    if _reconstructs(report) or target <= last:
        return f"step {format_step(target)} lies within the observed steps: no rollouts are saved"
    share = significant(100 * last / target)
    return (
        f"{format_step(last)} of {format_step(target)} steps ({share} %): "
        f"{target / last:.1f}× fewer rollouts"
    )


def _reference(item: Reference) -> str:
    """Name a checkpoint in a table cell, linked to the commit on the Hub if it has one."""
    reference, sha = item["reference"], item["sha"]
    shown = markdown.code(reference).replace("|", r"\|")
    if sha is None:
        return shown
    place = "/".join([sha, *filter(None, [quote(hub_reference(reference).folder)])])
    return f"{shown} at [`{sha[:8]}`]({HUB}/{hub_id(reference)}/tree/{place})"


def _method(report: _Shown) -> str:
    """Describe the arithmetic in a paragraph, with its source."""
    method = report["method"]
    rank = significant(method["rank"])
    line = "line" if rank == "1" else f"{rank}-dimensional subspace"
    start = (
        "For every weight tensor θ the updates θ_t − θ₀ of the observed checkpoints from the base "
        f"are decomposed by an SVD, and their leading {line} is kept. "
    )
    if _reconstructs(report):
        rest = "The tensor written is the observed update of that step, projected on it."
    elif (law := method.get("predictor", "linear")) != "linear":
        target = format_step(report["target_step"])
        rest = LAWS.get(law, OTHER_LAW).format(target=target, law=markdown.code(law))
    else:
        fitted = "all observed steps" if method["window"] is None else _window(method["window"])
        rest = (
            f"The coefficients along it are fitted over {fitted} with a polynomial of degree "
            f"{significant(method['degree'])} by least squares, continued to step "
            f"{format_step(report['target_step'])} and added back to the base."
        )
    choice = "".join(f"\n\n{line}" for line in _chosen(report))
    return f"{start}{rest} Source: {PAPER}. Merged with [mergekit]({MERGEKIT_URL}).{choice}"


def _window(window: float) -> str:
    return f"the last {significant(window)} checkpoints"


def _trust(report: _Shown) -> str:
    """Show the verdict, its reasons, what is missing, and the summary as a table."""
    verdict, summary = report["verdict"], report["summary"]
    rows = [
        f"| {label} | "
        + " | ".join(significant(summary[key][column]) for column in _COLUMNS)
        + " |"
        for key, label in _MEASURES
    ]
    return "\n".join(
        [
            *_verdict(verdict),
            *_gaps(report),
            "\n| | " + " | ".join(_COLUMNS) + " |\n|---|---:|---:|---:|---:|",
            *rows,
            "\nMin, mean and max are over tensors, the last column is the whole model. "
            "Straightness is 1 for a line; backtest skill is above 0 where the same prediction, "
            "made earlier in the run, came closer to the last observed checkpoint than standing "
            "still.",
        ]
    )


def _verdict(verdict: VerdictEntry) -> list[str]:
    """Show the verdict and its reasons; what each kind of evidence says where there are several."""
    word = f"Verdict: **{markdown.text(verdict['verdict'])}**"
    statements = verdict.get("statements", [])
    if not statements:
        return [f"{word}\n", *(markdown.item(reason) for reason in verdict["reasons"])]
    said = {says for statement in statements for says in statement["says"]}
    more = [markdown.item(reason) for reason in verdict["reasons"] if reason not in said]
    evidence = verdict.get("evidence", "geometry")
    return [f"{word} (evidence: {evidence})\n", *statements_list(statements), *more]


def _gaps(report: _Shown) -> list[str]:
    """List what could not be computed."""
    if not report["gaps"]:
        return []
    return ["\nGaps in the report:\n", *(markdown.item(missing(gap)) for gap in report["gaps"])]


def _chosen(report: _Shown) -> list[str]:
    """Tell how the predictor was chosen, and what spoke for each, where the recipe left it open."""
    choice = report["choice"]
    if choice is None:
        return []
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
