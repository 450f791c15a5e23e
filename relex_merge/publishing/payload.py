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

from relex_merge.checkpoints.complete import Finished, names_of, weights_of
from relex_merge.checkpoints.files import ADAPTER_CONFIG, CARD, RECIPE, REPORT
from relex_merge.checkpoints.json_files import read_json
from relex_merge.errors import RelexError
from relex_merge.hub.references import hub_id, is_local_path
from relex_merge.report.contents import Report, as_report
from relex_merge.report.local_paths import local_names, scrub, scrub_yaml
from relex_merge.report.snippet import fill_snippet

_CONFIGS = ("config.json", "generation_config.json", "tokenizer_config.json", "adapter_config.json")
_PATH_KEYS = ("name_or_path", "_file")


def report_of(output: Finished) -> Report | None:
    """Return the report of an output; None where another merge method made it.

    Raises:
        RelexError: the file holds something else.
    """
    return None if output.report is None else as_report(output.report, output.folder / REPORT)


def publishable(output: Finished, repo: str, revision: str | None) -> dict[str, Path | bytes]:
    """What is sent: path in the repo → local file, or new content where that names local paths.

    Args:
        output: a folder that passed the check.
        repo: repo id, for the loading lines of the card.
        revision: branch, for the same; None for ``main``.

    Raises:
        RelexError: the recipe of the output is not YAML, or its report is none.
    """
    folder, report = output.folder, report_of(output)
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
    if report is not None and (without := scrub(report, names)) != report:
        files[REPORT] = _json_bytes(without)
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


def contents(folder: Path, repo: str, base: str | None = None) -> dict[str, Path | bytes]:
    """Path in the repo → local file, or new content where that names a local path.

    repo: repo id; base: the model that the run started from, which stands in an adapter's
    configuration in the place of a local folder when it is on the Hub. Raises RelexError when there
    are no weights.
    """
    names = names_of(folder, weights_of(folder))
    files = publishable(Finished(folder, names, None), repo, None)
    if ADAPTER_CONFIG in files and base is not None and hub_id(base):
        config = read_json(folder / ADAPTER_CONFIG)
        if config.get("base_model_name_or_path") != base:
            config["base_model_name_or_path"] = base
            files[ADAPTER_CONFIG] = (json.dumps(config, indent=2) + "\n").encode()
    return files
