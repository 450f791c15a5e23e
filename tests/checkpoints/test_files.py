"""Promises about which files of a folder are the weights, and about the index of shards."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from relex_merge.checkpoints.complete import check_finished, missing_part, weights_of
from relex_merge.checkpoints.files import (
    INDEX,
    NotWholeError,
    find_weights,
    index_among,
    is_adapter,
    read_index,
    weights_among,
)
from relex_merge.checkpoints.find_local import find_local
from relex_merge.errors import RelexError
from relex_merge.weights.folder import open_folder
from tests.support.json_mutations import mutations

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
PICKLES = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
PLACES = {"a": SHARDS[0], "b": SHARDS[0], "c": SHARDS[1]}


@pytest.mark.parametrize(
    ("names", "kind", "files", "index"),
    [
        (["model.safetensors", "config.json"], "model", ["model.safetensors"], None),
        (["pytorch_model.bin", "training_args.bin"], "model", ["pytorch_model.bin"], None),
        (["model.safetensors", "pytorch_model.bin"], "model", ["model.safetensors"], None),
        ([*SHARDS, INDEX], "model", SHARDS, INDEX),
        ([*SHARDS, INDEX, "consolidated.safetensors"], "model", SHARDS, INDEX),
        # as mergekit: an index before a single file, safetensors before pickles
        ([*SHARDS, INDEX, "model.safetensors"], "model", SHARDS, INDEX),
        ([*PICKLES, "pytorch_model.bin.index.json", *SHARDS, INDEX], "model", SHARDS, INDEX),
        (
            [*PICKLES, "pytorch_model.bin.index.json"],
            "model",
            PICKLES,
            "pytorch_model.bin.index.json",
        ),
        # shards may have any name
        (["part-a.safetensors", "part-b.safetensors", INDEX], "model", None, INDEX),
        # a whole model before the adapter beside it, and a whole adapter before a torn model
        ([*ADAPTER, "model.safetensors"], "model", ["model.safetensors"], None),
        (ADAPTER, "adapter", ["adapter_model.safetensors"], None),
        (["adapter_config.json", "adapter_model.bin"], "adapter", ["adapter_model.bin"], None),
        ([*ADAPTER, SHARDS[0]], "adapter", ["adapter_model.safetensors"], None),
        # shards without an index are whole for nobody
        (SHARDS, "model", SHARDS, None),
        (["adapter_model.safetensors"], None, None, None),
        (["optimizer.bin", "relex_gram.safetensors"], None, None, None),
        ([INDEX], None, None, INDEX),
        ([], None, None, None),
    ],
)
def test_the_weights_among_the_names_of_a_folder(
    names: Sequence[str], kind: str | None, files: Sequence[str] | None, index: str | None
) -> None:
    found = weights_among(names)
    assert index_among(names) == index
    assert (found.kind if found else None) == kind
    if found:
        wanted = files or [name for name in names if name != INDEX]
        assert (found.files, found.index) == (tuple(wanted), index)
        assert found.orphans == (tuple(names) == SHARDS)
    assert is_adapter(names) == (kind == "adapter" or names == ["adapter_model.safetensors"])


def write_shards(folder: Path) -> Path:
    """Two shards with an index, and a configuration."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"architectures": ["X"]}')
    for shard in SHARDS:
        held = {name: np.zeros(2, np.float32) for name in PLACES if PLACES[name] == shard}
        save_file(held, folder / shard)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": PLACES}))
    return folder


def test_the_index_says_which_files_are_the_weights(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "step_1")
    save_file({"x": np.zeros(1)}, folder / "model-00007-of-00007.safetensors")
    names = [path.name for path in folder.iterdir()]
    found = find_weights(names, folder)
    assert found is not None
    assert (found.files, found.places) == (SHARDS, PLACES)
    with pytest.raises(NotWholeError, match=f"no {SHARDS[1]}, which its index names"):
        find_weights([name for name in names if name != SHARDS[1]], folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"weight_map": {}}', "has no weight_map"),
        ('{"weight_map": []}', "has no weight_map"),
        ('{"weight_map": {"a": 1}}', "puts a into 1"),
        ('{"weight_map": {"a": null}}', "puts a into None"),
        ('{"weight_map": {"a": "config.json"}}', "not the name of a .safetensors file"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "outside its folder"),
        ('{"weight_map": {"a": "/x.safetensors"}}', "outside its folder"),
        ('{"weight_map": {"a": "b\\\\x.safetensors"}}', "outside its folder"),
        (
            f'{{"weight_map": {{"a": "{SHARDS[0]}", "a": "{SHARDS[1]}"}}}}',
            "a is in it twice",
        ),
        ("[]", "no JSON object"),
        ('{"weight_map"', "not readable"),
        ('{"a": ' + 10**5 * "[" + 10**5 * "]" + "}", "nested too deeply"),
    ],
    ids=range(12),
)
def test_an_index_that_is_none_is_refused_everywhere(text: str, said: str, tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "step_1")
    write_shards(tmp_path / "step_2")
    (folder / INDEX).write_text(text)
    with pytest.raises(NotWholeError, match=re.escape(said)):
        read_index(folder / INDEX)
    for ask in (weights_of, check_finished, lambda f: open_folder(f, str(f))):
        with pytest.raises(RelexError) as caught:
            ask(folder)
        assert str(folder) in str(caught.value)
        assert said in str(caught.value)
    found = find_local(tmp_path)
    assert found.steps == [2]
    assert said in found.notes[0]


def said_of(folder: Path) -> str | None:
    """What is wrong with a checkpoint, None for one that can be read."""
    try:
        open_folder(folder, str(folder))
    except RelexError as error:
        return str(error)
    assert missing_part(folder, weights_of(folder)) is None
    return None


def test_no_index_is_an_internal_error(tmp_path: Path) -> None:
    """Of 518 files of this kind 50 were one."""
    folder = write_shards(tmp_path / "step_1")
    index = {"metadata": {"total_size": 24}, "weight_map": PLACES}
    kept = refused = 0
    for text in mutations(index, 500):
        (folder / INDEX).write_bytes(text)
        try:
            places = read_index(folder / INDEX)
        except NotWholeError:
            refused += 1
            with pytest.raises(RelexError):
                open_folder(folder, str(folder))
            with pytest.raises(RelexError):
                check_finished(folder)
            continue
        kept += 1
        assert places
        assert all(isinstance(part, str) for item in places.items() for part in item)
        fault = said_of(folder)
        assert fault is None or str(folder) in fault
    assert kept > 20
    assert refused > 200
