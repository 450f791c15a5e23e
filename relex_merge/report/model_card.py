"""The model card of an extrapolated model: its README.md, front matter first.

The card is rendered from ``relex_report.json`` and the recipe alone. Everything in it that was
written by somebody else (references, reasons, the recipe) is escaped, and passes ``scrub`` before,
so that a card never holds a path of the machine that made it. The repo it will be pushed to is
not known when it is rendered: ``loading_snippet`` is filled with ``PLACEHOLDER_REPO`` until then.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from relex_merge.formatting import format_step
from relex_merge.hub.references import HUB, hub_id, hub_reference
from relex_merge.report import markdown, table
from relex_merge.report.local_paths import local_names, scrub, scrub_yaml

# The parts of a report that a card shows.
_SHOWN = (
    "method",
    "base",
    "checkpoints",
    "target_step",
    "summary",
    "verdict",
    "versions",
    "choice",
)
PLACEHOLDER_REPO = "your-name/your-model"
TAGS = ("mergekit", "merge", "relex", "rlvr")
MERGEKIT_URL = "https://github.com/arcee-ai/mergekit"
PAPER_URL = "https://arxiv.org/abs/2605.21468"
PAPER = (
    "RELEX, [You Only Need Minimal RLVR Training: Extrapolating LLMs via Rank-1 Trajectories]"
    f"({PAPER_URL}), arXiv 2605.21468"
)

_MEASURES = (
    ("explained_variance", "Explained variance"),
    ("r2", "R² of the fit"),
    ("straightness", "Straightness"),
    ("backtest_skill", "Backtest skill"),
)
_COLUMNS = ("min", "mean", "max", "model")
# ids of the Hub's list (apache-2.0, cc-by-nc-4.0, llama3.1, …) have no other letters
_LICENSE_ID = re.compile(r"[a-z0-9][a-z0-9.+\-]*")


@dataclass(frozen=True)
class License:
    """A license as a card's front matter states it.

    Attributes:
        ids: ids of the Hub's list, mostly one.
        name: name of the license where the id is "other".
        link: URL, or file in the repo, of its text where the id is "other".
    """

    ids: tuple[str, ...]
    name: str | None = None
    link: str | None = None


def base_license(readme: str | Path | None) -> License | None:
    """License in the front matter of the base model's README.

    Args:
        readme: the README's text, its path, or None where the base has none.

    Returns:
        The license, or None where there is no README, no readable front matter, or no license in
        it that the Hub would accept.
    """
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    if isinstance(readme, Path):
        readme = readme.read_text("utf-8-sig", errors="replace") if readme.is_file() else None
    block = REGEX_YAML_BLOCK.search(readme) if readme else None
    try:
        fields = yaml.safe_load(block.group(2)) if block else None
    except yaml.YAMLError:
        return None
    if not isinstance(fields, dict):
        return None
    given = fields.get("license")
    ids = given if isinstance(given, list) else [given]
    known = tuple(item for item in ids if isinstance(item, str) and _LICENSE_ID.fullmatch(item))
    if not known or len(known) != len(ids):
        return None
    if known != ("other",):
        return License(known)
    name, link = fields.get("license_name"), fields.get("license_link")
    return License(
        known, name if isinstance(name, str) else None, link if isinstance(link, str) else None
    )


def default_revision(report: Mapping[str, Any]) -> str:
    """The revision an output is pushed to unless another is named: ``relex-step-<N>``."""
    return f"relex-step-{format_step(report['target_step'])}"


def loading_snippet(repo: str, revision: str | None = None, *, adapter: bool = False) -> str:
    """Python that loads the model and its tokenizer from the Hub: imports and two lines.

    Args:
        repo: repo id.
        revision: branch, tag, sha or ``refs/pr/N``; None for the default branch.
        adapter: whether it is a PEFT adapter, which brings its base with it.
    """
    arguments = json.dumps(repo, ensure_ascii=False)
    if revision is not None:
        arguments += f", revision={json.dumps(revision, ensure_ascii=False)}"
    if adapter:
        return (
            "from peft import AutoPeftModelForCausalLM\n"
            "from transformers import AutoTokenizer\n"
            f"model = AutoPeftModelForCausalLM.from_pretrained({arguments})\n"
            f"tokenizer = AutoTokenizer.from_pretrained({arguments})"
        )
    return (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"model = AutoModelForCausalLM.from_pretrained({arguments})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({arguments})"
    )


def fill_snippet(card: str, report: Mapping[str, Any], repo: str, revision: str | None) -> str:
    """``card`` with the repo and revision it is pushed to in the place of the placeholder."""
    adapter = "adapter" in report
    placeholder = loading_snippet(PLACEHOLDER_REPO, default_revision(report), adapter=adapter)
    return card.replace(placeholder, loading_snippet(repo, revision, adapter=adapter))


def model_card(
    report: Mapping[str, Any],
    recipe_yaml: str,
    *,
    name: str,
    license: License | None = None,
    pipeline_tag: str | None = "text-generation",
    figure: str | None = None,
) -> str:
    """README.md of an output.

    Args:
        report: what ``relex_report.json`` holds.
        recipe_yaml: the expanded recipe, as in ``mergekit_config.yml``.
        name: the card's title.
        license: what ``base_license`` read from the base's card.
        pipeline_tag: the Hub's task id, or None where it is not known.
        figure: file beside the card that shows the report, if there is one.
    """
    adapter = report.get("adapter")
    report = {key: report[key] for key in _SHOWN if key in report}
    names = local_names(report, yaml.safe_load(recipe_yaml))
    shown = scrub(report, names)
    base = hub_id(report["base"]["reference"])
    sections = [
        f"---\n{front_matter(base, license, pipeline_tag, adapter is not None)}\n---",
        f"# {markdown.text(scrub(name, names))}",
        _opening(shown),
        markdown.fenced(
            loading_snippet(
                PLACEHOLDER_REPO, default_revision(report), adapter=adapter is not None
            ),
            "python",
        ),
        *([_adapter(adapter)] if adapter else []),
        "## What was observed",
        _observed(shown),
        "## Method",
        _method(shown),
        "## How far to trust it",
        _trust(shown),
        *([f"![Trust report]({figure})"] if figure else []),
        "## Recipe",
        f"Run it with `relex-merge run recipe.yml OUT`, a front end of [mergekit]({MERGEKIT_URL}).",
        markdown.fenced(scrub_yaml(recipe_yaml, names), "yaml"),
        "Versions: "
        + ", ".join(f"{markdown.text(k)} {markdown.text(v)}" for k, v in shown["versions"].items()),
    ]
    return "\n\n".join(sections) + "\n"


def _adapter(adapter: Mapping[str, Any]) -> str:
    """One paragraph: what of the update the factors hold."""
    return (
        f"This is a LoRA adapter of rank {adapter['rank']} on {len(adapter['modules'])} modules. "
        f"It holds {1 - adapter['discarded']:.2%} of the energy ‖θ − θ₀‖² of the update: the "
        "truncated SVD of each weight's, which is the best approximation of that rank."
    )


def front_matter(
    base: str | None,
    license: License | None,
    pipeline_tag: str | None,
    adapter: bool,
    *,
    tags: Sequence[str] = TAGS,
    relation: str = "merge",
) -> str:
    """YAML of the front matter, without its fences.

    relation: what a whole model is to its base, as the Hub names it.
    """
    from huggingface_hub import ModelCardData

    link = license.link if license else None
    if link is not None and "://" not in link:
        # a file of the base's repo, which this repo does not have
        link = f"{HUB}/{base}/blob/main/{link.removeprefix('./')}" if base else None
    data = ModelCardData(
        base_model=base,
        library_name="peft" if adapter else "transformers",
        license=license.ids[0] if license else None,
        license_name=license.name if license else None,
        license_link=link,
        pipeline_tag=pipeline_tag,
        tags=[*tags, *(["lora"] if adapter else [])],
        base_model_relation=("adapter" if adapter else relation) if base else None,
    )
    if license and len(license.ids) > 1:
        data["license"] = list(license.ids)
    return data.to_yaml()


def _opening(report: Mapping[str, Any]) -> str:
    """One paragraph: what the model is."""
    base = markdown.code(report["base"]["reference"])
    untrained = "" if _reconstructs(report) else " It was not trained past the last of them."
    return (
        f"{_what(report)}, of an RLVR run from {base}; made with relex-merge from "
        f"{_observed_steps(report)}.{untrained}"
    )


def _reconstructs(report: Mapping[str, Any]) -> bool:
    return bool(report["method"]["mode"] == "reconstruct")


def _what(report: Mapping[str, Any]) -> str:
    """The prediction in words."""
    what = "Reconstruction of observed" if _reconstructs(report) else "Extrapolation to"
    rank = markdown.number(report["method"]["rank"])
    return f"{what} step {format_step(report['target_step'])}, rank {rank}"


def _observed_steps(report: Mapping[str, Any]) -> str:
    """Number of checkpoints and the span of their steps."""
    steps = [item["step"] for item in report["checkpoints"]]
    return (
        f"{len(steps)} observed checkpoints, steps "
        f"{format_step(min(steps))} to {format_step(max(steps))}"
    )


def _observed(report: Mapping[str, Any]) -> str:
    """Table of base, checkpoints, target and share, and a folded list of every checkpoint."""
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


def _share(report: Mapping[str, Any]) -> str:
    """Share of the run that was observed and what that saves."""
    last, target = max(item["step"] for item in report["checkpoints"]), report["target_step"]
    if _reconstructs(report) or target <= last:
        return f"step {format_step(target)} lies within the observed steps: no rollouts are saved"
    share = markdown.number(100 * last / target)
    return (
        f"{format_step(last)} of {format_step(target)} steps ({share} %): "
        f"{target / last:.1f}× fewer rollouts"
    )


def _reference(item: Mapping[str, Any]) -> str:
    """A checkpoint for a table cell: its reference, linked to the commit on the Hub if one was."""
    reference, sha = item["reference"], item["sha"]
    shown = markdown.code(reference).replace("|", r"\|")
    if sha is None:
        return shown
    place = "/".join([sha, *filter(None, [quote(hub_reference(reference).folder)])])
    return f"{shown} at [`{sha[:8]}`]({HUB}/{hub_id(reference)}/tree/{place})"


def _method(report: Mapping[str, Any]) -> str:
    """One paragraph on the arithmetic, with its source."""
    method = report["method"]
    rank = markdown.number(method["rank"])
    line = "line" if rank == "1" else f"{rank}-dimensional subspace"
    start = (
        "For every weight tensor θ the updates θ_t − θ₀ of the observed checkpoints from the base "
        f"are decomposed by an SVD, and their leading {line} is kept. "
    )
    if _reconstructs(report):
        rest = "The tensor written is the observed update of that step, projected on it."
    elif (law := method.get("predictor", "linear")) != "linear":
        rest = LAWS[law].format(target=format_step(report["target_step"]))
    else:
        fitted = "all observed steps" if method["window"] is None else _window(method["window"])
        rest = (
            f"The coefficients along it are fitted over {fitted} with a polynomial of degree "
            f"{markdown.number(method['degree'])} by least squares, continued to step "
            f"{format_step(report['target_step'])} and added back to the base."
        )
    choice = "".join(f"\n\n{line}" for line in chosen(report))
    return f"{start}{rest} Source: {PAPER}. Merged with [mergekit]({MERGEKIT_URL}).{choice}"


def _window(window: float) -> str:
    return f"the last {markdown.number(window)} checkpoints"


def _trust(report: Mapping[str, Any]) -> str:
    """Verdict, its reasons, and the summary figures as a table."""
    verdict, summary = report["verdict"], report["summary"]
    rows = [
        f"| {label} | "
        + " | ".join(markdown.number((summary.get(key) or {}).get(c)) for c in _COLUMNS)
        + " |"
        for key, label in _MEASURES
    ]
    return "\n".join(
        [
            f"Verdict: **{markdown.text(verdict['verdict'])}**\n",
            *(markdown.item(reason) for reason in verdict["reasons"]),
            "\n| | " + " | ".join(_COLUMNS) + " |\n|---|---:|---:|---:|---:|",
            *rows,
            "\nMin, mean and max are over tensors, the last column is the whole model. "
            "Straightness is 1 for a line; backtest skill is above 0 where the same prediction, "
            "made earlier in the run, came closer to the last observed checkpoint than standing "
            "still.",
        ]
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
