"""Adapters that cannot be extrapolated are refused with the reason, and nothing is left at OUT."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import relex_merge
from tests.support.adapters import Adapters, make_adapters, make_base
from tests.support.refusals import Refuse


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Adapters:
    return make_adapters(tmp_path_factory.mktemp("adapters"))


@pytest.fixture
def mine(series: Adapters, tmp_path: Path) -> Adapters:
    """A copy of the series that the test may spoil."""
    root = Path(shutil.copytree(series.base.parent, tmp_path / "run"))
    return Adapters(root / "base", tuple(root / f.name for f in series.folders), series.steps)


def configure(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / "adapter_model.safetensors"
    state = load_file(path)
    change(state)
    save_file({name: weight.contiguous() for name, weight in state.items()}, path)


def test_adapters_of_different_bases_are_named(mine: Adapters, refuse: Refuse) -> None:
    configure(mine.folders[2], base_model_name_or_path="org/another")
    message = refuse(mine.recipe())
    assert "org/another" in message or "another" in message
    assert str(mine.folders[2]) in message


def test_base_plus_adapter_on_another_base_is_refused(mine: Adapters, refuse: Refuse) -> None:
    recipe = mine.recipe()
    recipe["models"][0]["model"] = f"org/another+{mine.folders[0]}"
    assert "a series has one base" in refuse(recipe)


def test_a_missing_configuration_is_named(mine: Adapters, refuse: Refuse) -> None:
    (mine.folders[1] / "adapter_config.json").unlink()
    message = refuse(mine.recipe())
    assert "adapter_config.json" in message
    assert str(mine.folders[1]) in message


def test_missing_factors_are_named(mine: Adapters, refuse: Refuse) -> None:
    (mine.folders[1] / "adapter_model.safetensors").unlink()
    message = refuse(mine.recipe())
    assert "adapter_model.safetensors" in message
    assert str(mine.folders[1]) in message


def test_modules_that_the_base_does_not_have_are_named(mine: Adapters, refuse: Refuse) -> None:
    def rename(state: dict[str, torch.Tensor]) -> None:
        for name in [n for n in state if "layers.1.self_attn.q_proj" in n]:
            state[name.replace("q_proj", "query")] = state.pop(name)

    rewrite(mine.folders[3], rename)
    message = refuse(mine.recipe())
    assert "model.layers.1.self_attn.query.weight" in message
    assert str(mine.folders[3]) in message


def test_a_base_of_another_size_is_refused(mine: Adapters, refuse: Refuse, tmp_path: Path) -> None:
    other = make_base(tmp_path / "other", hidden_size=32)
    message = refuse({**mine.recipe(), "base_model": str(other)})
    assert "but it is [" in message
    assert "trained on" in message


def test_an_adapter_is_no_base(mine: Adapters, refuse: Refuse) -> None:
    message = refuse({**mine.recipe(), "base_model": str(mine.folders[0])})
    assert "is an adapter; name the model" in message


def test_a_torn_pair_of_factors_is_refused(mine: Adapters, refuse: Refuse) -> None:
    lost = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    rewrite(mine.folders[0], lambda state: state.__delitem__(lost))
    assert "has no factor B" in refuse(mine.recipe())


def test_not_a_number_in_a_factor_is_named(mine: Adapters, refuse: Refuse) -> None:
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    rewrite(mine.folders[2], lambda state: state[name].view(-1)[:1].fill_(float("nan")))
    message = refuse(mine.recipe())
    assert "NaN or Inf" in message
    assert str(mine.folders[2]) in message


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"init_lora_weights": "pissa_niter_16"}, "path_initial_model_for_weight_conversion"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
        ({"use_qalora": True}, "use_qalora"),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens"),
        ({"lora_alpha": "much"}, "adapter_config.json"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else None,
)
def test_kinds_whose_delta_is_no_product_are_refused_with_the_reason(
    mine: Adapters, refuse: Refuse, changes: dict[str, Any], word: str
) -> None:
    configure(mine.folders[4], **changes)
    message = refuse(mine.recipe())
    assert word in message
    assert str(mine.folders[4]) in message


def test_a_rank_needs_an_adapter_to_write(mine: Adapters, refuse: Refuse) -> None:
    message = refuse(mine.recipe(), "--as", "model", "--lora-rank", "4")
    assert "--as adapter" in message


def test_gram_matrices_of_other_adapters_are_not_reused(
    mine: Adapters, refuse: Refuse, tmp_path: Path
) -> None:
    relex_merge.extrapolate(mine.recipe(), tmp_path / "first", quiet=True, figure=False)
    rewrite(mine.folders[0], lambda state: [w.mul_(2) for w in state.values()])
    message = refuse(mine.recipe(), "--reuse", tmp_path / "first")
    assert "formed from other checkpoints" in message
