"""The model that a run started from: who says so, and whether it fits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from relex_merge.checkpoints.configs import check_base, check_unquantized, identity, read_config
from relex_merge.checkpoints.files import CONFIG
from relex_merge.checkpoints.json_files import Json
from relex_merge.checkpoints.locate import local_folder
from relex_merge.checkpoints.series import Base, Checkpoint
from relex_merge.checkpoints.sharded import companions_of
from relex_merge.checkpoints.sharded_in_place import companions_in_place
from relex_merge.errors import RelexError
from relex_merge.hub import download
from relex_merge.hub.references import hub_reference, may_be_on_hub
from relex_merge.places.address import is_place

# The adapter's own word counts most; a configuration's _name_or_path may be where it was resumed.
_KEYS = ("base_model_name_or_path", "base_model", "_name_or_path")


def propose(
    labelled: Iterable[tuple[str, Json]], own: Iterable[str] = ()
) -> tuple[Base | None, list[str]]:
    """Find the base that configurations and cards name.

    Args:
        labelled: where something stands, and what stands there; the first comes first.
        own: names of the series itself, which is no base.

    Returns:
        The base, None without one, and notes on names that are of no use on this machine.
    """
    labelled, own = list(labelled), set(own)
    notes: list[str] = []
    for key in _KEYS:
        for where, fields in labelled:
            value = fields.get(key)
            if isinstance(value, list) and len(value) == 1:
                value = value[0]
            if not isinstance(value, str) or not value:
                continue
            folder = local_folder(value)
            name = str(folder.resolve()) if folder else value.rstrip("/")
            if name in own:
                continue
            if folder or is_place(value) or (may_be_on_hub(value) and value.count("/") == 1):
                return Base(name, f"{key} in {where}"), notes
            notes.append(f"{key} in {where} says {value}, which is not on this machine")
    return None, notes


def or_step_zero(base: Base | None, checkpoints: Sequence[Checkpoint]) -> Base | None:
    """Return the base, or where nothing names one the checkpoint saved before the first step."""
    first = checkpoints[0]
    if base is None and first.step == 0 and first.kind == "model":
        return Base(first.reference, "the checkpoint of step 0")
    return base


def config_of(reference: str, cache_dir: str | None = None) -> Json:
    """Read the config.json of a folder, an address or a Hub reference.

    Raises RelexError without one; the message calls it a base.
    """
    if is_place(reference):
        config = companions_in_place(reference, cache_dir) / CONFIG
        if not config.is_file():
            raise RelexError(f"the base {reference} has no {CONFIG}; is it a model?")
        return read_config(config, f"{reference}/{CONFIG}")
    folder = local_folder(reference)
    if folder:
        config = companions_of(folder) / CONFIG
        if not config.is_file():
            raise RelexError(f"the base {reference} has no {CONFIG}; is it a model?")
        return read_config(config)
    if not may_be_on_hub(reference):
        raise RelexError(f"the base {reference} does not exist; it was taken for a local folder")
    place = hub_reference(reference)
    pinned = download.pin(place.repo, place.revision, cache_dir).at(place.folder)
    if pinned.files and CONFIG not in pinned.files:
        raise RelexError(f"the base {reference} has no {CONFIG}; is it a model?")
    return read_config(
        download.download_file(pinned, CONFIG, cache_dir), f"{CONFIG} of the base {reference}"
    )


def own_config(reference: str, cache_dir: str | None = None) -> Json:
    """Read the config.json of a checkpoint on this disk or in a place; empty without one."""
    if is_place(reference):
        folder = companions_in_place(reference, cache_dir)
        return read_config(folder / CONFIG, f"{reference}/{CONFIG}")
    return read_config(companions_of(Path(reference)) / CONFIG)


def check(base: str, checkpoint: str, own: Json, cache_dir: str | None = None) -> None:
    """Check that a base is there and can be what a checkpoint came from.

    Args:
        base: folder, address or Hub reference.
        checkpoint: reference, for messages.
        own: the checkpoint's config.json; of an adapter, which has none, it is empty, and only the
            base is looked at.
        cache_dir: the Hub's cache.

    Raises:
        RelexError: it is not there, or (MisfitError) it is another model.
    """
    config = config_of(base, cache_dir)
    check_unquantized(config, f"the base {base}")
    if identity(config, "model") is None:
        raise RelexError(f"the base {base} has a {CONFIG} that names no architecture")
    check_base(base, config, checkpoint, own)
