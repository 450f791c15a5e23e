"""Adapter series: G from the factors, adapter and model out, against PEFT's merged models."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import relex_merge
from relex_merge.api import examine
from relex_merge.engine import factors as gram_module
from relex_merge.engine.factors import adapters_of
from relex_merge.recipe.variant import Variant
from tests.support.adapters import (
    Adapters,
    change,
    deltas,
    extrapolated,
    farthest,
    make_adapters,
    merged,
)
from tests.support.reference import naive_relex

VARIANTS: dict[str, dict[str, Any]] = {
    "alpha over r": {},
    "rsLoRA": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.down_proj": 3},
        "alpha_pattern": {"k_proj": 3, "o_proj": 1},
    },
    "rsLoRA with patterns": {"use_rslora": True, "rank_pattern": {"q_proj": 2}},
    "fan_in_fan_out": {
        "kind": "gpt2",
        "fan_in_fan_out": True,
        "target_modules": ["c_attn", "c_proj"],
    },
    "embeddings": {
        "target_modules": ["embed_tokens", "q_proj"],
        "model": {"tie_word_embeddings": False},
    },
    "modules_to_save": {
        "modules_to_save": ["lm_head"],
        "model": {"tie_word_embeddings": False},
    },
    "biases": {"bias": "all"},
    "different ranks": {"ranks": (2, 3, 4, 5, 6)},
}


@pytest.fixture(scope="module", params=list(VARIANTS))
def variant(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Adapters:
    return make_adapters(tmp_path_factory.mktemp("adapters"), **VARIANTS[request.param])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Adapters:
    return make_adapters(tmp_path_factory.mktemp("plain"))


def test_gram_of_factors_is_that_of_the_explicit_deltas(variant: Adapters) -> None:
    found = examine(variant.recipe(), quiet=True).observed
    wanted = {name: M @ M.T for name, M in deltas(variant).items()}
    assert set(found.tensors) == set(wanted)
    for name, G in wanted.items():
        error = np.abs(found.tensors[name].gram - G).max() / np.abs(G).max()
        # Weights stored whole are differences of float32 numbers on both sides.
        assert error < 1e-10, name


def test_gram_of_large_factors_is_blocked_and_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(0)
    ranks = [7, 0, 12, 3, 9, 0]
    ends = (0, *np.cumsum(ranks).tolist())
    A = torch.randn(ends[-1], 40, generator=draw)
    B = torch.randn(30, ends[-1], generator=draw)
    D = [B[:, a:b].double() @ A[a:b].double() for a, b in pairwise(ends)]
    wanted = np.array([[float((x * y).sum()) for y in D] for x in D])
    for block in (1, 10, 192):
        monkeypatch.setattr(gram_module, "BLOCK", block)
        found = gram_module.gram(gram_module.Stack(A, B, ends, False))
        assert np.abs(found - wanted).max() / np.abs(wanted).max() < 1e-6


def test_the_model_is_what_the_merged_checkpoints_would_give(
    variant: Adapters, tmp_path: Path
) -> None:
    relex_merge.extrapolate(
        variant.recipe(), tmp_path / "out", form="model", quiet=True, figure=False
    )
    found = change(variant.base, tmp_path / "out")
    wanted = extrapolated(variant)
    assert farthest(found, wanted) < 1e-6 * _cancelled(variant, wanted)
    assert all(not np.any(found[name]) for name in set(found) - set(wanted))


def _cancelled(series: Adapters, wanted: dict[str, Any]) -> float:
    """How much larger the weights are than their change, which float32 cuts off so much earlier."""
    base = merged(series.base, None)
    sizes = [np.linalg.norm(base[n]) / np.linalg.norm(w) for n, w in wanted.items()]
    return max(1.0, float(max(sizes)))


def test_the_adapter_is_what_the_merged_checkpoints_would_give(
    variant: Adapters, tmp_path: Path
) -> None:
    """At a rank at which nothing need be discarded, through PEFT's own loading and merging."""
    result = relex_merge.extrapolate(
        variant.recipe(), tmp_path / "out", lora_rank=40, quiet=True, figure=False
    )
    base, loaded = merged(variant.base, None), merged(variant.base, tmp_path / "out")
    found = {name: weight - base[name] for name, weight in loaded.items()}
    wanted = extrapolated(variant)
    assert farthest(found, wanted) < 1e-6
    assert result.report["adapter"]["discarded"] < 1e-12


def test_truncation_to_a_rank_is_optimal_and_its_loss_reported(
    plain: Adapters, tmp_path: Path
) -> None:
    said: list[str] = []
    result = relex_merge.extrapolate(
        plain.recipe(), tmp_path / "out", lora_rank=2, quiet=True, figure=False, notify=said.append
    )
    base, loaded = merged(plain.base, None), merged(plain.base, tmp_path / "out")
    lost = result.report["adapter"]["modules"]
    for name, wanted in extrapolated(plain).items():
        U, S, Vh = np.linalg.svd(wanted.reshape(base[name].shape), full_matrices=False)
        best = U[:, :2] * S[:2] @ Vh[:2]
        assert np.linalg.norm(loaded[name] - base[name] - best) < 1e-6 * np.linalg.norm(best)
        energy = (S[2:] ** 2).sum() / (S**2).sum()
        assert lost[name.removesuffix(".weight")] == pytest.approx(energy, abs=1e-9)
    assert max(lost.values()) > 0.01
    assert any("leaves out more than 1%" in remark for remark in said)


def test_by_default_an_adapter_of_the_series_own_ranks_is_written(tmp_path: Path) -> None:
    series = make_adapters(tmp_path, rank_pattern={"q_proj": 2})
    relex_merge.extrapolate(series.recipe(), tmp_path / "out", quiet=True, figure=False)
    state = load_file(tmp_path / "out" / "adapter_model.safetensors")
    ranks = {name.split(".")[-3]: len(A) for name, A in state.items() if "lora_A" in name}
    assert ranks == {"q_proj": 2, "k_proj": 4, "o_proj": 4, "down_proj": 4}
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (4, 4, False)
    assert config["base_model_name_or_path"] == str(series.base)
    assert not (tmp_path / "out" / "model.safetensors").exists()
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "library_name: peft" in card
    assert "AutoPeftModelForCausalLM" in card


def test_the_gauge_of_the_factors_does_not_matter(plain: Adapters, tmp_path: Path) -> None:
    """B R and R⁻¹ A are the same adapter; so are permuted ranks."""
    draw = torch.Generator().manual_seed(5)
    twisted = []
    for folder in plain.folders:
        state = load_file(folder / "adapter_model.safetensors")
        for name in [n for n in state if "lora_A" in n]:
            partner = name.replace("lora_A", "lora_B")
            R = torch.randn(4, 4, generator=draw, dtype=torch.float64) + 3 * torch.eye(4)
            A, B = state[name].double(), state[partner].double()
            state[name], state[partner] = (R.inverse() @ A), (B @ R)
        copy = tmp_path / folder.name
        copy.mkdir()
        save_file(state, copy / "adapter_model.safetensors")
        (copy / "adapter_config.json").write_bytes((folder / "adapter_config.json").read_bytes())
        twisted.append(copy)
    other = Adapters(plain.base, tuple(twisted), plain.steps)
    for series, out in ((plain, "one"), (other, "two")):
        relex_merge.extrapolate(
            series.recipe(), tmp_path / out, form="model", quiet=True, figure=False
        )
    one, two = change(plain.base, tmp_path / "one"), change(plain.base, tmp_path / "two")
    assert farthest(two, {n: d for n, d in one.items() if np.any(d)}) < 1e-5


def test_extrapolating_the_factors_on_their_own_would_be_wrong(plain: Adapters) -> None:
    """Each factor continued alone, then multiplied, is not the continued product."""
    steps = np.asarray(plain.steps, dtype=np.float64)
    states = [load_file(f / "adapter_model.safetensors") for f in plain.folders]
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    parts = {}
    for factor in (name, name.replace("lora_A", "lora_B")):
        M = np.stack([state[factor].double().numpy().reshape(-1) for state in states])
        parts[factor] = naive_relex(M, steps, 20, 1).reshape(states[0][factor].shape)
    A, B = parts.values()
    alone = (6 / 4 * B @ A).reshape(-1)
    right = extrapolated(plain)["model.layers.0.self_attn.q_proj.weight"]
    assert np.linalg.norm(alone - right) > 0.2 * np.linalg.norm(right)


def test_dora_goes_through_the_full_weights(tmp_path: Path) -> None:
    series = make_adapters(tmp_path, use_dora=True)
    relex_merge.extrapolate(series.recipe(), tmp_path / "out", quiet=True, figure=False)
    wanted = extrapolated(series)
    assert (tmp_path / "out" / "model.safetensors").is_file()
    found = change(series.base, tmp_path / "out")
    assert farthest(found, wanted) < 1e-5


def test_a_series_of_adapters_and_full_checkpoints_is_one_of_full_weights(tmp_path: Path) -> None:
    series = make_adapters(tmp_path)
    from peft import PeftModel

    from tests.support.adapters import load

    for step, folder in list(zip(series.steps, series.folders, strict=True))[::2]:
        whole = PeftModel.from_pretrained(load(series.base), folder).merge_and_unload()
        whole.save_pretrained(tmp_path / f"merged-{step}")
    recipe = series.recipe()
    for entry in recipe["models"][::2]:
        entry["model"] = entry["model"].replace("checkpoint-", "merged-")
    relex_merge.extrapolate(recipe, tmp_path / "out", quiet=True, figure=False)
    assert farthest(change(series.base, tmp_path / "out"), extrapolated(series)) < 1e-4


def test_base_plus_adapter_is_the_adapter(plain: Adapters, tmp_path: Path) -> None:
    recipe = plain.recipe()
    for entry in recipe["models"]:
        entry["model"] = f"{plain.base}+{entry['model']}"
    relex_merge.extrapolate(recipe, tmp_path / "one", quiet=True, figure=False)
    relex_merge.extrapolate(plain.recipe(), tmp_path / "two", quiet=True, figure=False)
    one, two = (load_file(tmp_path / n / "adapter_model.safetensors") for n in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in two)


def test_several_targets_and_known_gram_matrices_give_the_same_digits(
    plain: Adapters, tmp_path: Path
) -> None:
    for form in ("adapter", "model"):
        relex_merge.extrapolate(
            plain.recipe(),
            tmp_path / form,
            target_step=[20, 40],
            form=form,
            quiet=True,
            figure=False,
        )
        alone = tmp_path / f"{form}-40"
        relex_merge.extrapolate(
            plain.recipe(),
            alone,
            target_step=40,
            form=form,
            reuse=tmp_path / form / "step-20",
            quiet=True,
            figure=False,
        )
        file = "adapter_model.safetensors" if form == "adapter" else "model.safetensors"
        assert (tmp_path / form / "step-40" / file).read_bytes() == (alone / file).read_bytes()


def test_nothing_of_the_base_is_read_for_an_adapter(plain: Adapters, tmp_path: Path) -> None:
    """Only its header is: a base of zeros gives the same adapter."""
    empty = tmp_path / "base"
    empty.mkdir()
    for path in plain.base.iterdir():
        (empty / path.name).write_bytes(path.read_bytes())
    weights = load_file(plain.base / "model.safetensors")
    save_file({n: torch.zeros_like(w) for n, w in weights.items()}, empty / "model.safetensors")
    other = Adapters(empty, plain.folders, plain.steps)
    relex_merge.extrapolate(plain.recipe(), tmp_path / "one", quiet=True, figure=False)
    relex_merge.extrapolate(other.recipe(), tmp_path / "two", quiet=True, figure=False)
    one, two = (load_file(tmp_path / n / "adapter_model.safetensors") for n in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in two)


def test_a_full_series_becomes_an_adapter(plain: Adapters, tmp_path: Path) -> None:
    from peft import PeftModel

    from tests.support.adapters import load

    models = []
    for step, folder in zip(plain.steps, plain.folders, strict=True):
        whole = PeftModel.from_pretrained(load(plain.base), folder).merge_and_unload()
        whole.save_pretrained(tmp_path / f"merged-{step}")
        models.append({"model": str(tmp_path / f"merged-{step}")})
    recipe = {**plain.recipe(), "models": models}
    result = relex_merge.extrapolate(
        recipe, tmp_path / "out", form="adapter", lora_rank=3, quiet=True, figure=False
    )
    base, loaded = merged(plain.base, None), merged(plain.base, tmp_path / "out")
    for name, wanted in extrapolated(plain).items():
        U, S, Vh = np.linalg.svd(wanted.reshape(base[name].shape), full_matrices=False)
        best = U[:, :3] * S[:3] @ Vh[:3]
        assert np.linalg.norm(loaded[name] - base[name] - best) < 1e-3 * np.linalg.norm(best)
        kept = (S[3:] ** 2).sum() / (S**2).sum()
        lost = result.report["adapter"]["modules"][name.removesuffix(".weight")]
        assert lost == pytest.approx(kept, abs=1e-5)
    relex_merge.extrapolate(
        recipe,
        tmp_path / "again",
        form="adapter",
        lora_rank=3,
        reuse=tmp_path / "out",
        quiet=True,
        figure=False,
    )
    one, two = (load_file(tmp_path / n / "adapter_model.safetensors") for n in ("out", "again"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_an_adapter_series_is_recognised_as_one(plain: Adapters) -> None:
    from mergekit.options import MergeOptions

    from relex_merge.pipeline import prepare
    from relex_merge.recipe.load import load_recipe

    prepared = prepare.prepare(load_recipe(plain.recipe()), [Variant()], MergeOptions())
    assert len(adapters_of(prepared.plan)) == len(plain.steps)


@pytest.mark.gpu
def test_a_gpu_gives_what_the_cpu_gives(plain: Adapters, tmp_path: Path) -> None:
    from mergekit.options import MergeOptions

    for device in ("cpu", "cuda"):
        relex_merge.extrapolate(
            plain.recipe(),
            tmp_path / device,
            options=MergeOptions(device=device),
            form="model",
            quiet=True,
            figure=False,
        )
    found, wanted = (change(plain.base, tmp_path / device) for device in ("cuda", "cpu"))
    assert farthest(found, {n: d for n, d in wanted.items() if np.any(d)}) < 1e-6
