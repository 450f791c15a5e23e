"""The card on ``main`` of a published series: what it is, how to load a step, how to extrapolate.

Everything in it is made here or checked before: steps, names of revisions, ids of the Hub. A base
that is a local folder is not named, since nobody else could load it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relex_merge.checkpoints.steps import step_of
from relex_merge.errors import INSTALL
from relex_merge.hub.references import HUB, hub_id
from relex_merge.publishing.revision_names import RevisionFormat
from relex_merge.report.card_method import PAPER
from relex_merge.report.front_matter import License, front_matter
from relex_merge.report.snippet import loading_snippet

# By this a later run knows the card for its own and may write it anew.
MARK = "<!-- written by relex-merge publish-series; remove this line to keep your own changes -->"
TAGS = ("relex", "rlvr", "training-checkpoints")
PLACEHOLDER_BASE = "the-model-this-run-started-from"


@dataclass(frozen=True)
class Published:
    """What a card tells.

    Attributes:
        repo: repo id.
        format: names of the revisions.
        steps: ascending, one revision each.
        base: Hub reference, None where it is not on the Hub, a revision of the same repo where the
            run saved its step 0.
        adapter: whether the checkpoints are LoRA adapters.
        last_step: where the run ends, as far as it is known.
        license: of the base.
    """

    repo: str
    format: RevisionFormat
    steps: tuple[int, ...]
    base: str | None
    adapter: bool = False
    last_step: int = 0
    license: License | None = None


def series_card(series: Published) -> str:
    """Write the README.md of the repo's ``main``."""
    steps, name = series.steps, series.format.name
    base = hub_id(series.base) if series.base else None
    origin = f"[`{series.base}`]({HUB}/{base})" if base else "a model not on the Hub"
    what = "LoRA adapters" if series.adapter else "checkpoints"
    head = front_matter(
        base if base != series.repo else None,
        series.license,
        "text-generation",
        series.adapter,
        tags=TAGS,
        relation="finetune",
    )
    sections = [
        f"---\n{head}\n---",
        MARK,
        f"# {series.repo.partition('/')[2]}: the checkpoints of a training run",
        f"{len(steps)} {what} of one run, step {steps[0]} to {steps[-1]}, each a revision of this "
        f"repo. The run started from {origin}. `main` holds this card and no weights.",
        "## Load one",
        _fenced(loading_snippet(series.repo, name(steps[-1]), adapter=series.adapter), "python"),
        *(_extrapolating(series) if len(steps) > 1 else []),
        "## Steps",
        "| step | revision |\n|---:|---|\n"
        + "\n".join(f"| {s} | [`{name(s)}`]({HUB}/{series.repo}/tree/{name(s)}) |" for s in steps),
    ]
    return "\n\n".join(sections) + "\n"


def _extrapolating(series: Published) -> list[str]:
    return [
        "## Extrapolate the run",
        "Reinforcement learning moves the weights almost along a line, so that the checkpoints of "
        f"its beginning tell where it goes ({PAPER}). Save this as `recipe.yml`; `target_step` is "
        "the step to go to.",
        _fenced(recipe_text(series), "yaml"),
        "Ask first whether the run may be extrapolated that far, then do it:",
        _fenced(
            f"{INSTALL}\nrelex-merge inspect recipe.yml\nrelex-merge run recipe.yml OUT",
            "bash",
        ),
    ]


def recipe_text(series: Published) -> str:
    """Write a recipe over all steps, to where the run ends or else twice as far as the last."""
    last = series.steps[-1]
    target = series.last_step if series.last_step > last else 2 * last
    lines = [
        "merge_method: relex",
        f"base_model: {series.base or PLACEHOLDER_BASE}",
        "models:",
        *_models(series),
        "parameters:",
        f"  target_step: {target}",
    ]
    return "\n".join(lines)


def _models(series: Published) -> list[str]:
    """Write the entries under models: brace ranges where the revision's name tells the step."""
    repo, name = series.repo, series.format.name
    if any(step_of(f"{repo}@{name(step)}") != step for step in series.steps):
        return [
            f"  - model: {repo}@{name(step)}\n    parameters: {{step: {step}}}"
            for step in series.steps
        ]
    ranges = [
        name(run[0]) if len(run) == 1 else series.format.steps(run[0], run[-1], run[1] - run[0])
        for run in runs(series.steps)
    ]
    return [f'  - model: "{repo}@{each}"' for each in ranges]


def runs(steps: Sequence[int]) -> list[list[int]]:
    """Cut ascending steps into runs of equal distances: 1 2 3 5 10 15 → [1 2 3] [5 10 15]."""
    found: list[list[int]] = []
    for step in steps:
        run = found[-1] if found else []
        if len(run) == 1 or (len(run) > 1 and step - run[-1] == run[1] - run[0]):
            run.append(step)
        else:
            found.append([step])
    return found


def _fenced(text: str, language: str) -> str:
    return f"```{language}\n{text}\n```"
