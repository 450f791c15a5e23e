"""Runs over torchtitan's checkpoints give what the same weights give as Hugging Face folders."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from relex_merge.publishing.converted import convert
from tests.support.models import Series, make_config, make_state, trained, write_model, write_recipe
from tests.support.terminal import Command
from tests.support.titan_runs import adapter_of, save_titan, split_experts, titan_state

STEPS = (5, 10, 15)
pytestmark = pytest.mark.usefixtures("no_figure")


@dataclass(frozen=True)
class _Runs:
    """The same weights as Hugging Face folders, and in a folder of torchtitan's checkpoints."""

    series: Series
    titan: Path


def _runs(root: Path, config: Any, adapter: Any) -> _Runs:
    start = split_experts(make_state(config))
    states = trained(start, STEPS)
    base = write_model(root / "base", config, start)
    folders = []
    for step, state in zip(STEPS, states, strict=True):
        folders.append(write_model(root / f"hf/step-{step}", config, state))
        save_titan(root / f"titan/step-{step}", titan_state(adapter, state))
    series = Series(base, tuple(folders), STEPS, start, tuple(states))
    return _Runs(series, root / "titan")


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
def test_the_output_is_the_same_to_the_byte(relex: Command, tmp_path: Path, kind: str) -> None:
    config = make_config(kind, num_attention_heads=4, num_key_value_heads=2, head_dim=8)
    runs = _runs(tmp_path, config, adapter_of(config))
    ours = tmp_path / "titan.yml"
    done = relex("recipe", runs.titan, "--base", runs.series.base, "--target-step", 20, "-o", ours)
    assert done.code == 0, done.err
    recipes = {"ours": ours, "theirs": write_recipe(tmp_path / "hf.yml", runs.series.recipe(20))}
    for name, recipe in recipes.items():
        ran = relex("run", "--yes", recipe, tmp_path / name, "--quiet")
        assert ran.code == 0, ran.err
    made, wanted = (tmp_path / name / "model.safetensors" for name in ("ours", "theirs"))
    assert made.read_bytes() == wanted.read_bytes()


@pytest.mark.parametrize("kind", ["llama", "qwen3_moe"])
def test_a_checkpoint_is_converted_to_a_hugging_face_model(tmp_path: Path, kind: str) -> None:
    """So publish-series uploads it."""
    config = make_config(kind, num_attention_heads=4, num_key_value_heads=2, head_dim=8)
    runs = _runs(tmp_path, config, adapter_of(config))
    out = tmp_path / "out"
    out.mkdir()
    convert(runs.titan / "step-10", out, base=str(runs.series.base))
    made, wanted = load_file(out / "model.safetensors"), runs.series.states[1]
    assert set(made) == set(wanted)
    assert all(torch.equal(made[name], tensor) for name, tensor in wanted.items())


def test_without_torchtitan_nothing_is_written(
    relex: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchtitan", None)
    config = make_config("llama")
    base = write_model(tmp_path / "base", config, make_state(config))
    names = {"tok_embeddings.weight": (64, 16), "layers.0.attention.qkv_linear.wq.weight": (16, 16)}
    for step in STEPS:
        save_titan(tmp_path / f"run/step-{step}", {n: torch.zeros(s) for n, s in names.items()})
    recipe = {
        "merge_method": "relex",
        "base_model": str(base),
        "models": [{"model": str(tmp_path / f"run/step-{step}")} for step in STEPS],
        "parameters": {"target_step": 20},
    }
    ran = relex("run", "--yes", write_recipe(tmp_path / "r.yml", recipe), tmp_path / "out")
    assert ran.code == 1
    assert "pip install 'torchtitan>=0.3'" in ran.err
    assert "convert_to_hf.py" in ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "out").exists()
