"""The front matter of model cards: reading it, and checking it as the Hub does before a commit."""

from __future__ import annotations

import re
from typing import Any

import yaml

_LICENSES = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0
bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause
bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0
cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0
cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1
eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research
intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0
openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 gemma
grok2-community unknown other
"""
_PIPELINES = """
text-generation text-classification token-classification question-answering summarization
translation fill-mask feature-extraction sentence-similarity image-text-to-text image-to-text
image-classification text-to-image automatic-speech-recognition text-to-speech any-to-any
text-ranking table-question-answering zero-shot-classification reinforcement-learning other
"""
LICENSES = frozenset(_LICENSES.split())
PIPELINES = frozenset(_PIPELINES.split())
RELATIONS = ("adapter", "merge", "quantized", "finetune")
_FRONT_MATTER = re.compile(r"\A\s*---[\r\n]+(.*?)[\r\n]+---(?:\r\n|\n|\Z)", re.DOTALL)
_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def front_matter(card: str) -> dict[str, Any]:
    """The metadata of a card; empty when there is none or it is broken."""
    found = _FRONT_MATTER.match(card)
    try:
        data = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        return {}
    return data if isinstance(data, dict) else {}


def validate(card: str) -> tuple[list[str], list[str]]:
    """Errors and warnings for a card's metadata."""
    found = _FRONT_MATTER.match(card)
    if found is None:
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        data = yaml.safe_load(found[1])
    except yaml.YAMLError as error:
        return [f"YAML parse error: {error}"], []
    if not isinstance(data, dict):
        return ['"metadata" must be of type object'], []
    errors = [*_license(data), *_base_model(data), *_strings(data)]
    warnings = []
    pipeline = data.get("pipeline_tag")
    if isinstance(pipeline, str) and pipeline not in PIPELINES:
        warnings.append(f'"pipeline_tag" with value "{pipeline}" is not in the official list')
    return errors, warnings


def _license(data: dict[str, Any]) -> list[str]:
    if "license" not in data:
        return []
    given = data["license"] if isinstance(data["license"], list) else [data["license"]]
    if given and all(isinstance(name, str) and name in LICENSES for name in given):
        return []
    return [f'"license" must be one of [{", ".join(sorted(LICENSES))}]']


def _base_model(data: dict[str, Any]) -> list[str]:
    errors = []
    if "base_model" in data:
        value = data["base_model"]
        for name in value if isinstance(value, list) else [value]:
            if not isinstance(name, str) or not _REPO_ID.fullmatch(name):
                errors.append(
                    f'"base_model" with value "{name}" is not valid. '
                    "Use a model id from https://hf.co/models."
                )
    if data.get("base_model_relation", "merge") not in RELATIONS:
        errors.append(f'"base_model_relation" must be one of [{", ".join(RELATIONS)}]')
    return errors


def _strings(data: dict[str, Any]) -> list[str]:
    errors = [
        f'"{key}" must be a string'
        for key in ("pipeline_tag", "library_name", "license_name", "license_link")
        if key in data and not isinstance(data[key], str)
    ]
    for key in ("tags", "datasets", "metrics"):
        value = data.get(key, [])
        single = isinstance(value, str) and key != "tags"
        if not single and not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
            errors.append(f'"{key}" must be an array of strings')
    return errors
