"""What leaves the machine: the files of an output, those that could name local folders rewritten.

Card, recipe, report and evaluations are scrubbed as a whole. Of the configurations that libraries
write, the paths of sources are shortened, and what was meant for this machine alone (tokens,
caches) is left out, however deep it lies. Rewriting happens in memory; the files of the output
stay as they are, and every other file is sent byte for byte.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from relex_merge.checkpoints.complete import Finished, names_of, weights_of
from relex_merge.checkpoints.files import ADAPTER_CONFIG, CARD, RECIPE, REPORT
from relex_merge.errors import RelexError, blank_secrets
from relex_merge.hub.references import hub_id, is_local_path
from relex_merge.report.contents import Report, as_report
from relex_merge.report.evaluation_file import EVALUATION_SUFFIX
from relex_merge.report.local_paths import local_names, scrub, scrub_yaml
from relex_merge.report.snippet import fill_placeholders

# transformers, PEFT and diffusers call all their configurations so.
_CONFIG = "config.json"
_PATH_KEYS = ("name_or_path", "_file", "_path", "_dir")
_REMEDY = "correct the file, or copy it from the model that it belongs to"
# Arguments of from_pretrained and of trainers that some versions write down with the rest.
_PRIVATE_KEYS = frozenset(
    (
        "token",
        "use_auth_token",
        "hf_token",
        "hub_token",
        "push_to_hub_token",
        "auth_token",
        "access_token",
        "api_key",
        "api_token",
        "secret",
        "password",
        "cache_dir",
    )
)


def report_of(output: Finished) -> Report | None:
    """Return the report of an output; None where another merge method made it.

    Raises:
        RelexError: the file holds something else.
    """
    return None if output.report is None else as_report(output.report, output.folder / REPORT)


def publishable(output: Finished, repo: str, revision: str | None) -> dict[str, Path | bytes]:
    """Gather what is sent.

    Args:
        output: a folder that passed the check.
        repo: repo id, for the loading lines of the card.
        revision: branch, for the same; None for ``main``.

    Returns:
        path in the repo → local file, or new content where the file names what is private.

    Raises:
        RelexError: a file of the output cannot be read as what it is.
    """
    folder, report = output.folder, report_of(output)
    files: dict[str, Path | bytes] = {name: folder / name for name in output.files}
    texts = {name: _text(folder / name) for name in (CARD, RECIPE) if name in files}
    measured = {n: _config(folder / n) for n in files if n.endswith(EVALUATION_SUFFIX)}
    try:
        recipe = yaml.safe_load(texts.get(RECIPE, ""))
        names = local_names(report, recipe, *texts.values(), *measured.values())
        if RECIPE in texts:
            files[RECIPE] = scrub_yaml(texts[RECIPE], names).encode()
    except yaml.YAMLError as error:
        raise RelexError(
            f"{folder / RECIPE} is not YAML ({error}); run the recipe again"
        ) from error
    if CARD in texts:
        card = scrub(texts[CARD], names)
        if report is not None:
            card = fill_placeholders(card, report, repo, revision)
        files[CARD] = card.encode()
    if report is not None and (clean := scrub(report, names)) != report:
        files[REPORT] = _json_bytes(clean)
    files |= {name: _json_bytes(scrub(content, names)) for name, content in measured.items()}
    for name in output.files:
        if name.endswith(_CONFIG):
            config = _config(folder / name)
            if (without := _without_private(config)) != config:
                files[name] = _json_bytes(without)
    return files


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise RelexError(f"{path} is no text ({error}); {_REMEDY}") from error


def _config(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise RelexError(f"{path} is not JSON ({error}); {_REMEDY}") from error


def _without_private(value: Any, key: str = "") -> Any:
    """Return part of a configuration, the value of ``key``, as others may see it."""
    if isinstance(value, dict):
        return {
            name: _without_private(item, name)
            for name, item in value.items()
            if name.lower() not in _PRIVATE_KEYS or isinstance(item, (dict, list))
        }
    if isinstance(value, list):
        return [_without_private(item, key) for item in value]
    if not isinstance(value, str):
        return value
    if key.endswith(_PATH_KEYS) or _is_on_this_disk(value):
        return scrub(value, local_names({"reference": value}))
    return blank_secrets(value)


def _is_on_this_disk(text: str) -> bool:
    """Tell whether a value is an absolute path that is there; "/word" may be a special token."""
    try:
        return is_local_path(text) and len(Path(text).parts) > 2 and Path(text).exists()
    except (OSError, ValueError):
        return False


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def contents(folder: Path, repo: str, base: str | None = None) -> dict[str, Path | bytes]:
    """Gather what is sent of a trainer's checkpoint.

    Args:
        folder: the checkpoint.
        repo: repo id.
        base: the model that the run started from, which stands in an adapter's configuration in
            the place of a local folder when it is on the Hub.

    Returns:
        path in the repo → local file, or new content where the file names what is private.

    Raises:
        RelexError: there are no weights, or a file cannot be read as what it is.
    """
    names = names_of(folder, weights_of(folder))
    files = publishable(Finished(folder, names, None), repo, None)
    if ADAPTER_CONFIG in files and base is not None and hub_id(base):
        config = _without_private(_config(folder / ADAPTER_CONFIG))
        if isinstance(config, dict) and config.get("base_model_name_or_path") != base:
            files[ADAPTER_CONFIG] = _json_bytes({**config, "base_model_name_or_path": base})
    return files
