"""``.bin`` files: an error that names the file, or every tensor can be read."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from relex_merge.weights.folder import open_folder
from relex_merge.weights.source import read_numbers
from tests.endurance.campaign import Bench, Campaign, Trial
from tests.support.pickle_mutations import mutated_pickle
from tests.support.refusal import refusal

ROW = torch.arange(1000, dtype=torch.float32).reshape(20, 50)


@contextmanager
def _open(bench: Bench) -> Iterator[Trial]:
    path = bench.folder / "pytorch_model.bin"
    torch.save({"a": ROW, "b": ROW.bfloat16(), "c": torch.tensor(1.0)}, path)
    good = path.read_bytes()

    def read() -> None:
        source = open_folder(bench.folder, "the model")
        for name, info in source.tensors.items():
            assert len(read_numbers(source, name, 0, info.numel)) == info.numel

    def trial(number: int) -> None:
        path.write_bytes(mutated_pickle(good, bench.seed, number))
        said = refusal(read)
        assert said is None or str(path) in said, said

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch remarks on odd protocols
        trial(0)  # imports
        yield trial


CAMPAIGN = Campaign("pickles", "mutated .bin files", 1_000, _open, slowest=1.0)
