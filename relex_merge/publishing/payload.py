"""What leaves the machine: the files of an output, those that could name local folders rewritten.

Card, recipe and report are scrubbed as a whole. In the configurations that libraries write the
path of their source into, the values of those keys are. Rewriting happens in memory; the files of
the output stay as they are, and every other file is sent byte for byte.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from relex_merge.checkpoints.complete import REPORT, Finished
from relex_merge.errors import RelexError
from relex_merge.report.local_paths import is_local_path, local_names, scrub, scrub_yaml
from relex_merge.report.model_card import fill_snippet

CARD = "README.md"
RECIPE = "mergekit_config.yml"
_CONFIGS = ("config.json", "generation_config.json", "tokenizer_config.json", "adapter_config.json")
_PATH_KEYS = ("name_or_path", "_file")


def publishable(output: Finished, repo: str, revision: str | None) -> dict[str, Path | bytes]:
    """What is sent: path in the repo → local file, or new content where that names local paths.

    Args:
        output: a folder that passed the check.
        repo: repo id, for the loading lines of the card.
        revision: branch, for the same; None for ``main``.

    Raises:
        RelexError: the recipe of the output is not YAML.
    """
    folder, report = output.folder, output.report
    files: dict[str, Path | bytes] = {name: folder / name for name in output.files}
    texts = {name: (folder / name).read_text("utf-8") for name in (CARD, RECIPE) if name in files}
    try:
        recipe = yaml.safe_load(texts.get(RECIPE, ""))
        names = local_names(report, recipe, *texts.values())
        if RECIPE in texts:
            files[RECIPE] = scrub_yaml(texts[RECIPE], names).encode()
    except yaml.YAMLError as error:
        raise RelexError(
            f"{folder / RECIPE} is not YAML ({error}); run the recipe again"
        ) from error
    if CARD in texts:
        card = scrub(texts[CARD], names)
        files[CARD] = (fill_snippet(card, report, repo, revision) if report else card).encode()
    if (clean := scrub(report, names)) != report:
        files[REPORT] = _json_bytes(clean)
    for name in _CONFIGS:
        if name in files:
            config = json.loads((folder / name).read_text("utf-8"))
            clean = {key: _without_path(key, value) for key, value in config.items()}
            if clean != config:
                files[name] = _json_bytes(clean)
    return files


def _without_path(key: str, value: Any) -> Any:
    """A configuration's value; only its last part where it is a local path of the source."""
    if key.endswith(_PATH_KEYS) and isinstance(value, str) and is_local_path(value):
        return scrub(value, local_names({key: value}))
    return value


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
