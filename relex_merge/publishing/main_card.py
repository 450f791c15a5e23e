"""The card on ``main`` of a repo whose revisions are outputs: what they are, and how to load one.

``push`` leaves ``main`` as it is, and a repo that was made for the push has nothing there: its page
would be empty. So ``main`` then gets this card, and no weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relex_merge.checkpoints.files import CARD
from relex_merge.checkpoints.hub_layouts import OUR_OUTPUTS
from relex_merge.checkpoints.steps import step_of
from relex_merge.hub.commit import KEPT
from relex_merge.hub.errors import patiently
from relex_merge.hub.references import HUB, hub_id
from relex_merge.hub.repo import MAIN, card_of, heads
from relex_merge.report import markdown
from relex_merge.report.card_method import PAPER
from relex_merge.report.front_matter import License, front_matter
from relex_merge.report.snippet import loading_snippet

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# By this a later push knows the card for its own and may write it anew.
MARK = "<!-- written by relex-merge push; remove this line to keep your own changes -->"


@dataclass(frozen=True)
class Outputs:
    """What the card tells.

    Attributes:
        repo: repo id.
        revision: the one that was pushed last, which the loading lines name.
        revisions: names of the revisions that hold outputs.
        base: reference of the base model of the last one.
        adapter: whether the last one is a LoRA adapter.
        license: of the base.
    """

    repo: str
    revision: str
    revisions: tuple[str, ...]
    base: str
    adapter: bool = False
    license: License | None = None


def main_card(outputs: Outputs) -> str:
    """Write the README.md of ``main``."""
    repo, base = outputs.repo, hub_id(outputs.base)
    head = front_matter(base, outputs.license, "text-generation", outputs.adapter)
    origin = f"[`{base}`]({HUB}/{base})" if base else "a model that is not on the Hub"
    count = len(outputs.revisions)
    sections = [
        f"---\n{head}\n---",
        MARK,
        f"# {markdown.text(repo.partition('/')[2])}: extrapolations of an RLVR run",
        f"{count} model{'s' * (count != 1)}, each a revision of this repo with a card of its own: "
        f"checkpoints that an RLVR run from {origin} would have reached, written from its first "
        f"ones without training on ({PAPER}). `main` holds this card and no weights.",
        "## Load one",
        markdown.fenced(loading_snippet(repo, outputs.revision, adapter=outputs.adapter), "python"),
        "## Revisions",
        "| step | revision |\n|---:|---|\n"
        + "\n".join(_row(repo, name) for name in _by_step(outputs.revisions)),
    ]
    return "\n\n".join(sections) + "\n"


def _by_step(names: Sequence[str]) -> list[str]:
    return sorted(names, key=lambda name: (step_of(name) is None, step_of(name) or 0, name))


def _row(repo: str, name: str) -> str:
    step = step_of(name)
    shown = "" if step is None else f"{step:g}"
    return f"| {shown} | [{markdown.code(name)}]({HUB}/{repo}/tree/{name}) |"


def write_main_card(
    api: HfApi,
    repo: str,
    revision: str,
    *,
    base: str,
    adapter: bool,
    license: License | None,
    replace: bool,
) -> bool:
    """Give ``main`` a card, where it has no file or an earlier card of this kind.

    Args:
        api: the client, with a token.
        repo: repo id.
        revision: the branch that was just pushed.
        base: reference of its base model.
        adapter: whether it is a LoRA adapter.
        license: of the base.
        replace: whether a card that others wrote is replaced too; other files stay in any case.

    Returns:
        Whether ``main`` has the card now.
    """
    from huggingface_hub import CommitOperationAdd

    branches, _ = heads(api, repo)
    there = patiently(lambda: api.list_repo_files(repo, revision=branches[MAIN]))
    old = card_of(api, repo, branches[MAIN]) if CARD in there else None
    ours = old is not None and MARK in old
    if not (replace or ours or not set(there) - {KEPT}):
        return False
    known = {revision, *(name for name in branches if name.startswith(OUR_OUTPUTS))}
    if ours and old is not None:  # under names of their own
        known |= {name for name in branches if f"/tree/{name})" in old}
    card = main_card(Outputs(repo, revision, tuple(known), base, adapter, license))
    if card != old:
        patiently(
            lambda: api.create_commit(
                repo,
                [CommitOperationAdd(CARD, card.encode())],
                commit_message="Card of the revisions, with relex-merge",
                revision=MAIN,
                parent_commit=branches[MAIN],
            )
        )
    return True
