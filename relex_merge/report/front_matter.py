"""The front matter of a card: what the Hub knows of a model, and the license of its base."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from relex_merge.hub.references import HUB

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TAGS = ("mergekit", "merge", "relex", "rlvr")
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
    """Read the license from the front matter of the base model's README.

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
    except (yaml.YAMLError, ValueError):  # a date that there is not is a ValueError
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


def front_matter(
    base: str | None,
    license: License | None,
    pipeline_tag: str | None,
    adapter: bool,
    *,
    tags: Sequence[str] = TAGS,
    relation: str = "merge",
    results: Sequence[EvalResult] = (),
    name: str | None = None,
) -> str:
    """Write the YAML of a card's front matter, without its fences.

    Args:
        base: repo id of the base model, or None where it is not on the Hub.
        license: of the base.
        pipeline_tag: the Hub's task id, or None where it is not known.
        adapter: whether the model is a PEFT adapter.
        tags: for the Hub's search.
        relation: what a whole model is to its base, as the Hub names it.
        results: of tasks, for the model-index.
        name: of the model in the model-index.
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
        eval_results=list(results) or None,
        model_name=name if results else None,
    )
    if license and len(license.ids) > 1:
        data["license"] = list(license.ids)
    return data.to_yaml()
