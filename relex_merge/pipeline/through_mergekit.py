"""Recipes that need more of mergekit than the engine has: mergekit's own path, same outputs.

Hub references are pinned and brought to the cache first, so that mergekit sees folders alone, and
steps are written out, since a folder of the cache does not name its step.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from relex_merge.checkpoints.files import SINGLE, VOCABULARY
from relex_merge.checkpoints.locate import Snapshot, locate
from relex_merge.checkpoints.steps import step_of
from relex_merge.engine.architecture import read_config
from relex_merge.errors import FULL, RelexError, disk_errors
from relex_merge.pipeline.merge_method import recording
from relex_merge.places.address import is_place
from relex_merge.recipe.load import Recipe
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.statistics import SeriesStatistics
from relex_merge.weights.folder import mark_files, open_folder
from relex_merge.weights.writer import plan_shards, write_index

if TYPE_CHECKING:
    from mergekit.config import MergeConfiguration
    from mergekit.options import MergeOptions


def run_merge(recipe: Recipe, folder: Path, options: MergeOptions) -> None:
    """Call mergekit's ``run_merge``, unchanged; models in places are brought here for it.

    Args:
        recipe: of any merge method.
        folder: where the model goes.
        options: mergekit's.

    Raises:
        RelexError: there is no room for the model.
        Exception: whatever else mergekit raises.
    """
    from mergekit.merge import run_merge as merge

    config = _without_addresses(recipe, options)
    try:
        merge(config, str(folder), options, recipe.to_yaml())
    except Exception as error:
        number = _full(error)
        if number is None:
            raise
        with disk_errors(folder):
            raise OSError(number, os.strerror(number)) from error


def _without_addresses(recipe: Recipe, options: MergeOptions) -> MergeConfiguration:
    """Return the configuration with folders for addresses, which mergekit would take for repos."""
    parts = [p for m in recipe.config.referenced_models() for p in (m.model, m.lora) if p]
    addresses = sorted({part.path for part in parts if "://" in part.path})
    if not addresses:
        return recipe.config.model_copy(deep=True)
    found = _brought(addresses, options)
    folders = {a: str(s.folder) for a, s in zip(addresses, found, strict=True)}

    def local(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: local(value) for key, value in node.items()}
        if isinstance(node, list):
            return [local(entry) for entry in node]
        if isinstance(node, str) and "://" in node:
            return "+".join(folders.get(part, part) for part in node.split("+"))
        return node

    return type(recipe.config).model_validate(local(recipe.settings))


def _brought(references: Sequence[str], options: MergeOptions) -> list[Snapshot]:
    """Bring models to this disk. Raises RelexError for shards, of a place before they are here."""
    cache = options.transformers_cache
    addresses = [reference for reference in references if is_place(reference)]
    if addresses:
        _refuse_shards(locate(addresses, cache_dir=cache, stream=True))
    found = locate(references, cache_dir=cache, stream=False)
    _refuse_shards(found)
    return found


def _refuse_shards(found: Sequence[Snapshot]) -> None:
    for snapshot in found:
        if snapshot.sharded is not None:
            raise RelexError(
                f"{snapshot.reference} is in shards, which do not go with what needs mergekit's "
                "own path (other merge methods, tokenizer settings, slices, modules); leave that "
                "out, or publish the checkpoints first with relex-merge publish-series"
            )


def _full(error: Exception) -> int | None:
    """Return the error number of a write that found no room, whatever it was wrapped in."""
    if isinstance(error, OSError) and error.errno in FULL:
        return error.errno
    # safetensors says "No space left on device (os error 28)".
    found = re.search(r"\(os error (\d+)\)", str(error))
    if found and int(found[1]) in FULL:
        return int(found[1])
    # torch.save says no more than that it could not write.
    return errno.ENOSPC if "PytorchStreamWriter failed" in str(error) else None


def run_relex(
    recipe: Recipe, folder: Path, options: MergeOptions
) -> tuple[SeriesStatistics, dict[str, Parameters], list[Snapshot]]:
    """Merge a relex recipe by mergekit.

    Args:
        recipe: of this package's method.
        folder: where weights and tokenizer go.
        options: mergekit's.

    Returns:
        What the method saw, the parameters of each tensor, and the snapshots that were read (base
        first, then the order of the steps).

    Raises:
        RelexError: a checkpoint does not go with mergekit's path, or there is no room.
    """
    base = str(recipe.config.base_model)
    names = [str(m) for m in recipe.config.referenced_models() if not m.lora]
    found = _brought(names, options)
    for snapshot in found:
        if snapshot.is_adapter:
            raise RelexError(
                f"{snapshot.reference} is an adapter, and adapters do not go with what needs "
                "mergekit's own path (tokenizer settings, slices, modules); leave that out"
            )
        trust = options.trust_remote_code
        read_config(snapshot.folder, snapshot.reference, trust_remote_code=trust)
    snapshots = dict(zip(names, found, strict=True))
    if recipe.config.tokenizer or recipe.config.tokenizer_source:
        _require_tokenizers(found)
    steps: dict[str, float] = {}
    settings = _pin(recipe.settings, snapshots, base, steps)
    pinned = Recipe(settings, type(recipe.config).model_validate(settings), recipe.name)
    # A chat template without a choice of tokenizer is put into the base's, which mergekit copies.
    copied = options.copy_tokenizer and bool(recipe.config.chat_template)
    plain = options.model_copy(update={"write_model_card": False, "copy_tokenizer": copied})
    marks = [m for snapshot in found for m in mark_files(snapshot.folder, snapshot.reference)]
    with recording() as record:
        run_merge(pinned, folder, plain)
    for mark in marks:
        mark.check_unchanged()
    if (folder / SINGLE).is_file():
        write_index(folder, plan_shards(open_folder(folder, "the output").tensors, 0))
    ordered = sorted((step, name) for name, step in steps.items() if name in snapshots)
    seen = {n: s for n, (s, _) in record.items() if len(s.gram) == len(ordered)}
    statistics = SeriesStatistics(np.array([s for s, _ in ordered], dtype=np.float64), seen)
    predictors = {name: predictor for name, (_, predictor) in record.items()}
    return statistics, predictors, [snapshots[base], *(snapshots[name] for _, name in ordered)]


def _require_tokenizers(snapshots: Sequence[Snapshot]) -> None:
    """Raise RelexError for a model without a tokenizer.

    For such a model transformers makes an empty one, and mergekit would drop every row.
    """
    for snapshot in snapshots:
        if not any((snapshot.folder / file).is_file() for file in VOCABULARY):
            raise RelexError(
                f"{snapshot.reference} has no tokenizer, which the recipe's tokenizer setting needs"
                " of every model; copy the base's tokenizer files there, or leave the setting out"
            )


def _pin(node: Any, snapshots: Mapping[str, Snapshot], base: str, steps: dict[str, float]) -> Any:
    """Return a recipe's node with folders for references and a step for every checkpoint.

    Args:
        node: any part of the recipe.
        snapshots: reference → what is read.
        base: reference of the base.
        steps: takes the step of every checkpoint, by reference.
    """
    if isinstance(node, list):
        return [_pin(entry, snapshots, base, steps) for entry in node]
    if isinstance(node, str):
        return str(snapshots[node].folder) if node in snapshots else node
    if not isinstance(node, dict):
        return node
    pinned = {key: _pin(value, snapshots, base, steps) for key, value in node.items()}
    model = node.get("model")
    if isinstance(model, str) and model != base:
        given = node.get("parameters") or {}
        step = given.get("step", step_of(model))
        if step is not None and given.get("role") != "holdout":
            steps[model] = float(step)
            pinned["parameters"] = {**given, "step": float(step)}
    return pinned
