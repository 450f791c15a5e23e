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
from relex_merge.report import markdown
from relex_merge.report.card_method import MERGEKIT_URL, method_section
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
from relex_merge.report.snippet import placeholder_snippet, placeholder_title
from relex_merge.trajectory.backtests.entries import ChoiceEntry
from relex_merge.trajectory.backtests.gaps import Gap

FIGURE_TEXT = (
    "Trust report: spectrum, coefficient against step, backtests, and maps of explained variance "
    "and skill"
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
        name: of the model, for its results; the card's title is that of the base until a push.
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
    metadata = front_matter(
        base,
        license,
        pipeline_tag,
        adapter is not None,
        results=eval_results(report),
        name=scrub(name, names),
    )
    evaluation = shown["evaluation"]
    sections = [
        f"---\n{metadata}\n---",
        scrub(placeholder_title(report), names),
        _opening(shown),
        markdown.fenced(placeholder_snippet(report), "python"),
        *([_adapter(adapter)] if adapter else []),
        "## What was observed",
        _observed(shown),
        "## Method",
        method_section(shown["method"], shown["target_step"], shown["choice"]),
        "## How far to trust it",
        _trust(shown),
        *([f"![{FIGURE_TEXT}]({figure})"] if figure else []),
        *(
            ["## Evaluation", evaluation_section(evaluation, measured(report), evaluation_figure)]
            if evaluation
            else []
        ),
        "## Recipe",
        _how_to_run(shown),
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
    base = _linked(report["base"])
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
            f"\n<details>\n<summary>Every checkpoint{_commits(report)}</summary>\n",
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


def _commits(report: _Shown) -> str:
    """Say that commits are named, where the checkpoints have any."""
    known = [item["sha"] is not None for item in report["checkpoints"]]
    if not any(known):
        return ""
    return ", with the commit that was read" + ("" if all(known) else " where it came from the Hub")


def _linked(item: Reference) -> str:
    """Name a model, linked to its repo if it was read from the Hub."""
    shown = markdown.code(item["reference"])
    repo = None if item["sha"] is None else hub_id(item["reference"])
    return f"[{shown}]({HUB}/{repo})" if repo else shown


def _reference(item: Reference) -> str:
    """Name a checkpoint in a table cell, linked to the commit on the Hub if it has one."""
    reference, sha = item["reference"], item["sha"]
    shown = _linked(item).replace("|", r"\|")
    if sha is None:
        return shown
    place = "/".join([sha, *filter(None, [quote(hub_reference(reference).folder)])])
    return f"{shown} at [`{sha[:8]}`]({HUB}/{hub_id(reference)}/tree/{place})"


def _how_to_run(report: _Shown) -> str:
    """Say how the recipe is run, and what it lacks where models were read from local folders."""
    command = f"with `relex-merge run recipe.yml OUT`, a front end of [mergekit]({MERGEKIT_URL})"
    local = [item for item in report["checkpoints"] if item["sha"] is None]
    absent = [
        *(["the base"] if report["base"]["sha"] is None else []),
        *([f"{len(local)} of the checkpoints"] if local else []),
    ]
    if not absent:
        return f"Save it as `recipe.yml` and run it {command}: it reads everything from the Hub."
    return (
        f"It does not run as it is: {' and '.join(absent)} lay in local folders, of which it "
        "shows no more than the end of each path. Put the paths or Hub references of your copies "
        f"there, save it as `recipe.yml` and run it {command}."
    )


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
