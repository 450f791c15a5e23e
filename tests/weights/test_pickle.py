"""``.bin`` files: every plain tensor as torch reads it, and nothing else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from relex_merge.errors import RelexError
from relex_merge.weights.folder import open_folder
from relex_merge.weights.pickle import PickleSource
from relex_merge.weights.source import Source, read_numbers
from tests.support.pickle_mutations import mutated_pickle

ROW = torch.arange(1000, dtype=torch.float32).reshape(20, 50)
PLAIN = {
    "whole": ROW,
    "part of a storage": ROW[3:7],
    "transposed": ROW.T,
    "every second column": ROW[:, ::2],
    "one column for all": torch.arange(20.0)[:, None].expand(20, 50),
    "scalar": torch.tensor(3.5),
    "empty": torch.empty(0, 7),
    "bfloat16": ROW.bfloat16(),
    "integers": torch.arange(7),
    "booleans": torch.tensor([True, False, True]),
    "parameter": torch.nn.Parameter(ROW[:2]),
    "float8": ROW.to(torch.float8_e4m3fn),
}


def save(folder: Path, content: Any) -> Path:
    path = folder / "pytorch_model.bin"
    torch.save(content, path)
    return path


def read(source: Source, name: str) -> torch.Tensor:
    info = source.tensors[name]
    return read_numbers(source, name, 0, info.numel).reshape(info.shape)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    raw = [t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (one, other)]
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*raw)


@pytest.mark.parametrize("wrapped", [False, True])
def test_every_plain_tensor_is_what_torch_saved(wrapped: bool, tmp_path: Path) -> None:
    save(tmp_path, {"state_dict": PLAIN, "epoch": 3} if wrapped else PLAIN)
    source = open_folder(tmp_path, "the model")
    assert isinstance(source, PickleSource)
    assert source.tensors.keys() == PLAIN.keys()
    for name, tensor in PLAIN.items():
        assert same(read(source, name), tensor), name


@pytest.mark.parametrize("name", ["whole", "transposed", "every second column"])
def test_any_part_of_a_tensor_can_be_read(name: str, tmp_path: Path) -> None:
    save(tmp_path, PLAIN)
    source = open_folder(tmp_path, "the model")
    flat = PLAIN[name].reshape(-1)
    for start, count in ((0, 1), (17, 100), (len(flat) - 3, 3), (5, 0)):
        assert torch.equal(read_numbers(source, name, start, count), flat[start : start + count])


def test_what_is_no_tensor_is_left_out(tmp_path: Path) -> None:
    save(tmp_path, {"w": ROW, "step": 3, "name": "x", "list": [ROW]})
    assert list(open_folder(tmp_path, "the model").tensors) == ["w"]


def quantized() -> torch.Tensor:
    return torch.quantize_per_tensor(ROW, 0.1, 0, torch.qint8)


def quantized_by_channel() -> torch.Tensor:
    zeros = torch.zeros(20, dtype=torch.long)
    return torch.quantize_per_channel(ROW, torch.rand(20), zeros, 0, torch.qint8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (quantized, "quantized"),
        (quantized_by_channel, "quantized"),
        (ROW.to_sparse, "sparse"),
        (lambda: ROW.to("meta"), "not stored as plain numbers"),
        (lambda: torch.complex(ROW, ROW).conj(), "not stored as plain numbers"),
    ],
    ids=["quantized", "by channel", "sparse", "meta", "conjugated"],
)
def test_other_tensors_are_refused_by_name_of_the_file(
    make: Any, said: str, tmp_path: Path
) -> None:
    path = save(tmp_path, {"fine": ROW, "odd": make()})
    with pytest.raises(RelexError, match=said) as caught:
        open_folder(tmp_path, "the model")
    assert str(path) in str(caught.value)


def test_many_files_are_opened_at_a_time(tmp_path: Path) -> None:
    for i in range(12):
        (tmp_path / f"{i}").mkdir()
        save(tmp_path / f"{i}", {"w": ROW + i})
    with ThreadPoolExecutor(6) as pool:
        sources = list(pool.map(lambda i: open_folder(tmp_path / f"{i}", "m"), range(12)))
    for i, source in enumerate(sources):
        assert torch.equal(read(source, "w"), ROW + i)


def test_numbers_in_the_other_byte_order_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, {"w": ROW})
    content = path.read_bytes()
    assert content.count(b"little") == 1
    path.write_bytes(content.replace(b"little", b"bigend"))
    with pytest.raises(RelexError, match="save it as safetensors"):
        open_folder(tmp_path, "the model")


@pytest.mark.parametrize("seed", range(3))
def test_a_broken_file_is_an_error_that_names_it_or_is_read_whole(
    seed: int, tmp_path: Path
) -> None:
    good = save(tmp_path, {"a": ROW, "b": ROW.bfloat16(), "c": torch.tensor(1.0)}).read_bytes()
    path = tmp_path / "pytorch_model.bin"
    for number in range(70):
        path.write_bytes(mutated_pickle(good, seed, number))
        try:
            source = open_folder(tmp_path, "the model")
        except RelexError as error:
            assert str(path) in str(error)  # noqa: PT017  # either is right
        else:
            for name in source.tensors:
                read(source, name)
