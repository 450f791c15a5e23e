"""What one pass leaves behind: its sums, and its file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from relex_merge.engine import kernels
from relex_merge.errors import RelexError
from relex_merge.trajectory.statistics import SeriesStatistics, TensorStatistics


def a_series() -> SeriesStatistics:
    rng = np.random.default_rng(0)
    names = ["z.weight", "a.weight", "model.layers.10.mlp.up_proj.weight", "α β"]
    return SeriesStatistics(
        np.asarray([1.0, 2.5, 1e6 + 1 / 3]),
        {
            name: TensorStatistics(
                rng.normal(size=(3, 3)) * 10.0**-i, float(rng.normal() ** 2), i, 10**i
            )
            for i, name in enumerate(names)
        },
    )


def assert_same(actual: SeriesStatistics, expected: SeriesStatistics) -> None:
    """Equal to the last bit, names in the same order."""
    assert actual.steps.tolist() == expected.steps.tolist()
    assert list(actual.tensors) == list(expected.tensors)
    for name, t in expected.tensors.items():
        got = actual.tensors[name]
        assert got.gram.dtype == np.float64
        assert got.gram.tolist() == t.gram.tolist()
        rest = (t.base_squared_norm, t.moved, t.numel)
        assert (got.base_squared_norm, got.moved, got.numel) == rest


def test_what_is_saved_is_loaded_to_the_last_bit(tmp_path: Path) -> None:
    a_series().save(tmp_path / "gram.safetensors")
    assert_same(SeriesStatistics.load(tmp_path / "gram.safetensors"), a_series())


def test_a_series_without_tensors_is_a_series(tmp_path: Path) -> None:
    empty = SeriesStatistics(np.asarray([1.0, 2.0]), {})
    empty.save(tmp_path / "gram.safetensors")
    assert_same(SeriesStatistics.load(tmp_path / "gram.safetensors"), empty)


def test_a_gram_matrix_that_is_a_view_of_another_is_saved_as_it_reads(tmp_path: Path) -> None:
    whole = np.arange(25.0).reshape(5, 5)
    gram = whole[1:4, 1:4]
    series = SeriesStatistics(np.arange(3.0), {"w": TensorStatistics(gram, 1.0, 2, 3)})
    series.save(tmp_path / "gram.safetensors")
    assert_same(SeriesStatistics.load(tmp_path / "gram.safetensors"), series)


def test_statistics_of_the_parts_add_up_to_those_of_the_whole() -> None:
    rows = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows[3, :10] = rows[0, :10]
    whole = kernels.accumulate(rows, torch.float64)
    parts = [kernels.accumulate(part, torch.float64) for part in (rows[:, :300], rows[:, 300:])]
    total = parts[0] + parts[1]
    np.testing.assert_allclose(total.gram, whole.gram, rtol=1e-12, atol=1e-12)
    assert total.base_squared_norm == pytest.approx(whole.base_squared_norm, rel=1e-12)
    assert (total.moved, total.numel) == (whole.moved, whole.numel) == (990, 1000)


def about(steps: list[int], tensors: object) -> dict[str, str]:
    """Metadata as a file of Gram matrices has it."""
    return {"series": json.dumps({"steps": steps, "tensors": tensors})}


def damaged(kind: str, path: Path) -> None:
    """Put at ``path`` a file that is not one of Gram matrices."""
    array, gram = {"w": np.eye(2)}, {"gram/w": np.eye(2)}
    a_series().save(path)
    content = path.read_bytes()
    match kind:
        case "absent":
            path.unlink()
        case "a folder":
            path.unlink()
            path.mkdir()
        case "empty":
            path.write_bytes(b"")
        case "garbage":
            path.write_bytes(b"\xff" * 500)
        case "truncated":
            path.write_bytes(content[:-8])
        case "a model":
            save_file(array, path, metadata={"format": "pt"})
        case "no JSON":
            save_file(array, path, metadata={"series": '{"steps": [1, 2], "tensors": {'})
        case "a tensor missing":
            save_file(gram, path, metadata=about([1, 2], {"v": [1.0, 1, 1]}))
        case "a list":
            save_file(gram, path, metadata=about([1, 2], []))
        case "a number too few":
            save_file(gram, path, metadata=about([1, 2], {"w": [1.0, 1]}))
        case "another shape":
            save_file(gram, path, metadata=about([1, 2, 3], {"w": [1.0, 1, 1]}))
        case "not a number":
            save_file(
                {"gram/w": np.full((2, 2), np.nan)},
                path,
                metadata=about([1, 2], {"w": [1.0, 1, 1]}),
            )


@pytest.mark.parametrize(
    "kind",
    [
        "absent",
        "a folder",
        "empty",
        "garbage",
        "truncated",
        "a model",
        "no JSON",
        "a tensor missing",
        "a list",
        "a number too few",
        "another shape",
        "not a number",
    ],
)
def test_a_file_that_is_not_one_of_gram_matrices_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "gram.safetensors"
    damaged(kind, path)
    with pytest.raises(RelexError, match=r"gram\.safetensors is not a file of Gram matrices"):
        SeriesStatistics.load(path)
