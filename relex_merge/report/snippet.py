"""What a card says of the repo that it is pushed to: its title, and the lines that load the model.

The repo is not known when the card is written: until then the title names the base, and the lines
name a placeholder.
"""

from __future__ import annotations

import json
import re

from relex_merge.formatting import format_step
from relex_merge.report import markdown
from relex_merge.report.contents import Report

PLACEHOLDER_REPO = "your-name/your-model"


def default_revision(report: Report) -> str:
    """Name the revision that an output is pushed to by default: ``relex-step-<N>``."""
    return f"relex-step-{format_step(report['target_step'])}"


def loading_snippet(repo: str, revision: str | None = None, *, adapter: bool = False) -> str:
    """Write Python that loads the model and its tokenizer from the Hub: imports and two lines.

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


def placeholder_snippet(report: Report) -> str:
    """Write the lines for a model that is not published yet."""
    adapter = "adapter" in report
    return loading_snippet(PLACEHOLDER_REPO, default_revision(report), adapter=adapter)


def placeholder_title(report: Report) -> str:
    """Write the heading of a card whose repo is not known yet: the base's name, and the step."""
    base = re.split(r"[@+]", report["base"]["reference"], maxsplit=1)[0]
    parts = [part for part in re.split(r"[\\/]", base) if part]
    return _title(parts[-1] if parts else "A model", report)


def _title(name: str, report: Report) -> str:
    return f"# {markdown.text(name)}: RLVR step {format_step(report['target_step'])}"


def fill_placeholders(card: str, report: Report, repo: str, revision: str | None) -> str:
    """Put the repo and revision that a card is pushed to in the place of the placeholders.

    A title or lines that someone has written anew stay as they are.

    Args:
        card: text of the card.
        report: the report that the card was made from.
        repo: repo id.
        revision: branch; None for ``main``.
    """
    filled = loading_snippet(repo, revision, adapter="adapter" in report)
    title = _title(repo.rpartition("/")[2], report)
    return card.replace(placeholder_snippet(report), filled).replace(
        f"\n{placeholder_title(report)}\n", f"\n{title}\n", 1
    )
