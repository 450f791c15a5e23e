"""What bad checkpoints get: the message names tensor and checkpoint, and nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.support.models import Series, make_series, read_weights, write_weights
from tests.support.refusals import Refuse, sliced

LAYER = "model.layers.1.mlp.up_proj.weight"
pytestmark = pytest.mark.usefixtures("no_figure")


def spoil(folder: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
    """Rewrite one tensor of a model; None takes it out."""
    state = read_weights(folder)
    new = change(state.pop(name))
    write_weights(folder, state if new is None else {**state, name: new})


def test_a_tensor_missing_in_one_checkpoint(refuse: Refuse, mine: Series) -> None:
    spoil(mine.checkpoints[2], LAYER, lambda w: None)
    for recipe in (mine.recipe(), sliced(mine.recipe())):
        message = refuse(recipe)
        assert LAYER in message
        assert str(mine.checkpoints[2]) in message


def test_a_head_of_its_own_missing_in_one_checkpoint(refuse: Refuse, tmp_path: Path) -> None:
    series = make_series(tmp_path / "untied", tie_word_embeddings=False)
    spoil(series.checkpoints[2], "lm_head.weight", lambda w: None)
    message = refuse(series.recipe())
    assert "lm_head.weight" in message
    assert str(series.checkpoints[2]) in message


def test_a_tensor_missing_in_the_base(refuse: Refuse, mine: Series) -> None:
    spoil(mine.base, LAYER, lambda w: None)
    message = refuse(mine.recipe())
    assert LAYER in message
    assert str(mine.base) in message


def test_shapes_that_differ(refuse: Refuse, mine: Series) -> None:
    spoil(mine.checkpoints[2], LAYER, lambda w: w[:-1].contiguous())
    message = refuse(mine.recipe())
    assert LAYER in message
    assert str(mine.checkpoints[2]) in message
    assert "[23, 16]" in message
    assert "[24, 16]" in message


def test_vocabularies_that_differ_point_to_mergekits_tokenizer_options(
    refuse: Refuse, mine: Series
) -> None:
    spoil(mine.checkpoints[2], "model.embed_tokens.weight", lambda w: w[:-1].contiguous())
    message = refuse(mine.recipe())
    assert "model.embed_tokens.weight" in message
    assert str(mine.checkpoints[2]) in message
    assert "tokenizer" in message


@pytest.mark.parametrize("poison", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("where", ["checkpoint", "base"])
def test_nan_or_inf(poison: str, where: str, refuse: Refuse, mine: Series) -> None:
    folder = mine.base if where == "base" else mine.checkpoints[2]

    def put(w: torch.Tensor) -> torch.Tensor:
        w[3, 5] = float(poison)
        return w

    spoil(folder, LAYER, put)
    for recipe in (mine.recipe(), sliced(mine.recipe())):
        message = refuse(recipe)
        assert LAYER in message
        assert str(folder) in message
        assert "NaN or Inf" in message


def test_a_prediction_that_overflows_its_dtype(refuse: Refuse, mine: Series) -> None:
    message = refuse({**mine.recipe(1e9), "out_dtype": "float16"})
    assert "overflows torch.float16" in message
    assert "out_dtype: float32" in message


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.uint8, torch.int32, torch.float8_e4m3fn], ids=str
)
@pytest.mark.parametrize("everywhere", [True, False])
def test_integer_and_quantized_weights(
    dtype: torch.dtype, everywhere: bool, refuse: Refuse, mine: Series
) -> None:
    folders = (mine.base, *mine.checkpoints) if everywhere else mine.checkpoints[1:2]
    for i, folder in enumerate(folders):
        spoil(folder, LAYER, lambda w, i=i: (w * 100 + i).to(dtype))  # type: ignore[misc]
    message = refuse(mine.recipe())
    assert LAYER in message
    assert str(folders[-1]) in message or str(mine.checkpoints[0]) in message or everywhere
    assert "quantized" in message


def test_a_base_with_a_quantization_config(refuse: Refuse, mine: Series) -> None:
    path = mine.base / "config.json"
    config = json.loads(path.read_text())
    quantization = {"quant_method": "fp8", "activation_scheme": "dynamic"}
    path.write_text(json.dumps({**config, "quantization_config": quantization}))
    message = refuse(mine.recipe())
    assert str(mine.base) in message
    assert "unquantized" in message
