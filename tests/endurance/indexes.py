"""Indexes of shards, on this disk and on the Hub: every tensor can be read, or it is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file

from relex_merge.checkpoints.complete import check_finished
from relex_merge.hub.download import pin
from relex_merge.hub.ranges import Connections
from relex_merge.weights.folder import mark_files, open_folder
from relex_merge.weights.remote import HubSource
from relex_merge.weights.source import Source, read_numbers
from tests.endurance.campaign import Bench, Campaign, Trial
from tests.fake_hub.fixtures import emptied_hub
from tests.support.json_mutations import mutation
from tests.support.refusal import refusal

REPO = "org/run"
SHARDS = {"model-1": {"w": 1.0, "a": 2.0}, "model-2": {"w": 3.0, "b": 4.0}}
INDEX = {"safetensors": "model.safetensors.index.json", "bin": "pytorch_model.bin.index.json"}


def _places(kind: str) -> dict[str, object]:
    files = {"a": "model-1", "b": "model-2", "w": "model-1"}
    places = {tensor: f"{file}.{kind}" for tensor, file in files.items()}
    return {"metadata": {"total_size": 36}, "weight_map": places}


def _shards(folder: Path, kind: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen2"}')
    for file, numbers in SHARDS.items():
        state = {name: torch.full((3,), value) for name, value in numbers.items()}
        if kind == "bin":
            torch.save(state, folder / f"{file}.bin")
        else:
            save_file(state, folder / f"{file}.safetensors")
    return folder


def _read(source: Source) -> None:
    assert source.tensors
    for name, info in source.tensors.items():
        assert len(read_numbers(source, name, 0, info.numel)) == info.numel


@contextmanager
def _open(bench: Bench) -> Iterator[Trial]:
    folders = {kind: _shards(bench.folder / kind, kind) for kind in INDEX}

    def trial(number: int) -> None:
        kind = "bin" if number % 3 == 1 else "safetensors"
        folder, text = folders[kind], mutation(_places(kind), bench.seed, number)
        (folder / INDEX[kind]).write_bytes(text)
        if number % 3 == 2:
            hub.commit(REPO, {INDEX[kind]: text})
            pinned = pin(REPO, None).at()
            refusal(lambda: _read(HubSource(pinned, folder, "the model", Connections())))
            return
        refusal(lambda: _read(open_folder(folder, "the model")))
        refusal(lambda: mark_files(folder, "the model"))
        refusal(lambda: check_finished(folder))

    with emptied_hub() as hub:
        hub.commit_folder(REPO, folders["safetensors"])
        yield trial


CAMPAIGN = Campaign("indexes", "mutated indexes of shards, a third on the Hub", 1_000, _open)
