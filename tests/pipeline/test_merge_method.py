"""Promises of the merge method: mergekit's own entry points know ``relex`` by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.merge_methods import merge_state_dicts, merge_tensors
from mergekit.options import MergeOptions

import relex_merge
from relex_merge.errors import RelexError
from tests.support.models import (
    Series,
    expected,
    float64,
    make_config,
    make_series,
    make_state,
    read_weights,
    trained,
    worst_error,
    write_model,
)
from tests.support.reference import naive_reconstruction, naive_relex
from tests.support.terminal import python

STEPS = (1.0, 2.0, 4.0, 7.0, 9.0)
IDS = ["base", *(f"run@step_{step:g}" for step in STEPS)]


def inputs(d: int = 500, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """θ₀ and a θ_t for each of STEPS."""
    state = {"w": torch.randn(d, generator=torch.Generator().manual_seed(seed))}
    return [s["w"].to(dtype) for s in (state, *trained(state, STEPS, seed=seed + 1))]


def reference(tensors: list[torch.Tensor], target: float, **how: Any) -> np.ndarray[Any, Any]:
    base = float64(tensors[0])
    M = np.stack([float64(t) for t in tensors[1:]]) - base
    steps = np.asarray(STEPS)
    return base + naive_relex(M, steps, target, **{"rank": 1, **how})


def by_name(
    tensors: list[torch.Tensor], ids: list[str] = IDS, base_index: int = 0, **parameters: Any
) -> torch.Tensor:
    result: torch.Tensor = merge_tensors(
        tensors, "relex", parameters=parameters, ids=ids, base_index=base_index
    )
    return result


def by_mergekit(recipe: dict[str, Any], out: Path, **options: Any) -> dict[str, torch.Tensor]:
    config = MergeConfiguration.model_validate(recipe)
    run_merge(config, str(out), MergeOptions(**{"quiet": True, **options}))
    return read_weights(out)


# merge_tensors


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"rank": 2},
        {"rank": 5},
        {"degree": 2},
        {"window": 3},
        {"rank": 3, "degree": 2, "window": 4},
    ],
)
def test_merge_tensors_agrees_with_the_svd(how: dict[str, Any]) -> None:
    tensors = inputs()
    result = by_name(tensors, target_step=30, **how)
    assert np.allclose(float64(result), reference(tensors, 30, **how), rtol=0, atol=5e-7)


def test_reconstruct_gives_back_an_observed_checkpoint_at_full_rank_and_smooths_below() -> None:
    tensors = inputs(dtype=torch.float64)
    full = by_name(tensors, target_step=7, mode="reconstruct", rank=5)
    assert torch.allclose(full, tensors[4], rtol=0, atol=1e-12)
    smooth = by_name(tensors, target_step=7, mode="reconstruct")
    base = float64(tensors[0])
    M = np.stack([float64(t) for t in tensors[1:]]) - base
    assert np.allclose(float64(smooth), base + naive_reconstruction(M, 3, 1), rtol=0, atol=1e-12)
    assert not torch.allclose(smooth, tensors[4], rtol=0, atol=1e-6)


def test_the_order_of_the_models_and_the_place_of_the_base_do_not_matter() -> None:
    tensors = inputs()
    straight = by_name(tensors, target_step=30)
    order = [3, 5, 0, 1, 4, 2]
    shuffled = by_name(
        [tensors[i] for i in order], [IDS[i] for i in order], order.index(0), target_step=30
    )
    assert torch.equal(straight, shuffled)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(5)), st.floats(0.01, 100), st.integers(0, 1000))
def test_given_steps_win_over_the_reference_and_their_unit_does_not_matter(
    order: list[int], unit: float, seed: int
) -> None:
    tensors = inputs(d=20, seed=seed, dtype=torch.float64)
    chosen = [tensors[0], *(tensors[1 + i] for i in order)]
    result = by_name(
        chosen,
        ["base", *(f"odd@step_{i + 100}" for i in range(5))],
        target_step=30 * unit,
        step={f"odd@step_{100 + k}": STEPS[i] * unit for k, i in enumerate(order)},
    )
    assert np.allclose(float64(result), reference(tensors, 30), rtol=1e-9, atol=1e-12)


def test_a_tensor_that_never_moves_comes_back_bit_for_bit() -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        base = inputs(dtype=dtype)[0]
        assert torch.equal(by_name([base.clone() for _ in IDS], target_step=500), base)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0), (2, 3, 4)])
def test_scalars_empty_tensors_and_any_shape(shape: tuple[int, ...]) -> None:
    flat = inputs(d=int(np.prod(shape)))
    result = by_name([t.reshape(shape) for t in flat], target_step=30)
    assert result.shape == shape
    assert np.allclose(float64(result), reference(flat, 30) if result.numel() else [], atol=5e-7)


def test_mixed_dtypes_are_promoted_and_out_dtype_rounds_once() -> None:
    tensors = inputs()
    mixed = [
        tensors[0].bfloat16(),
        *(t.to(d) for t, d in zip(tensors[1:], [torch.float32, torch.bfloat16] * 3, strict=False)),
    ]
    want = reference([t.double() for t in mixed], 30)
    result = by_name(mixed, target_step=30)
    assert result.dtype == torch.float32
    assert np.allclose(float64(result), want, rtol=0, atol=2e-6)
    half = merge_tensors(
        mixed,
        "relex",
        ids=IDS,
        base_index=0,
        parameters={"target_step": 30},
        out_dtype=torch.bfloat16,
    )
    assert torch.equal(half, result.bfloat16())


def test_bfloat16_files_lose_nothing_beyond_their_own_rounding() -> None:
    tensors = [t.bfloat16() for t in inputs(d=4000)]
    want = torch.from_numpy(reference(tensors, 30)).bfloat16()
    result = by_name(tensors, target_step=30)
    assert result.dtype == torch.bfloat16
    # Not one number may be off by more than the last bit, and hardly any by that.
    assert (result != want).float().mean() < 1e-3


@pytest.mark.parametrize(
    ("parameters", "culprit"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"rank": 6}, "rank is 6"),
        ({"degree": 0}, "degree is 0"),
        ({"window": 1}, "window is 1"),
        ({"window": 6}, "window is 6"),
        ({"degree": 5}, "degree is 5"),
        ({"mode": "guess"}, "mode is 'guess'"),
        ({"mode": "reconstruct"}, "30 was not"),
        ({"target_step": -1}, "target_step is -1"),
        ({"target_step": float("nan")}, "target_step is nan"),
    ],
)
def test_parameters_out_of_range_are_named(parameters: dict[str, Any], culprit: str) -> None:
    with pytest.raises(RelexError, match=culprit):
        by_name(inputs(), **{"target_step": 30, **parameters})


def test_target_step_is_required_and_unknown_parameters_are_refused() -> None:
    with pytest.raises(Exception, match="target_step"):
        by_name(inputs())
    with pytest.raises(Exception, match="targt_step"):
        by_name(inputs(), targt_step=30)


def test_steps_that_cannot_be_told_or_occur_twice_are_named() -> None:
    with pytest.raises(RelexError, match="cannot tell the step of odd"):
        by_name(inputs(), [*IDS[:-1], "odd"], target_step=30)
    with pytest.raises(RelexError, match="run@step_7 and other@step_7 have the same step 7"):
        by_name(inputs(), [*IDS[:-1], "other@step_7"], target_step=30)
    with pytest.raises(RelexError, match="steps are numbers"):
        by_name(inputs(), target_step=30, step=dict.fromkeys(IDS[1:], -3.0))


def test_a_base_and_two_checkpoints_are_required() -> None:
    with pytest.raises(Exception, match=r"(?i)base"):
        merge_tensors(inputs(), "relex", ids=IDS, parameters={"target_step": 30})
    with pytest.raises(Exception, match=r"(?i)at least"):
        by_name(inputs()[:2], IDS[:2], target_step=30)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", [0, 3])
def test_nan_and_inf_name_the_checkpoint_and_the_tensor(poison: float, where: int) -> None:
    tensors = inputs()
    tensors[where][17] = poison
    with pytest.raises(RelexError) as caught:
        merge_tensors(
            tensors,
            "relex",
            ids=IDS,
            base_index=0,
            name="model.norm.weight",
            parameters={"target_step": 30},
        )
    assert IDS[where] in str(caught.value)
    assert "model.norm.weight" in str(caught.value)


def test_inputs_are_not_changed_and_no_gradient_is_recorded() -> None:
    tensors = [t.requires_grad_() for t in inputs()]
    before = [t.detach().clone() for t in tensors]
    result = by_name(tensors, target_step=30)
    assert not result.requires_grad
    assert all(torch.equal(a.detach(), b) for a, b in zip(tensors, before, strict=True))


def test_memory_does_not_grow_with_the_number_of_checkpoints() -> None:
    """Peak of what is allocated beyond the inputs: one output and a few chunks, not T tensors."""
    script = """
import relex_merge.pipeline.merge_method  # the third order of imports
import resource, sys, torch
from mergekit.merge_methods import merge_tensors
torch.set_num_threads(1)
d, T = 4_000_000, 24
def tensors(d):
    base = torch.zeros(d, dtype=torch.bfloat16)
    return [base] + [(base + t * 0.01) for t in range(1, T + 1)]
ids = ["base", *(f"r@step_{t}" for t in range(1, T + 1))]
def merge(x):
    return merge_tensors(x, "relex", ids=ids, base_index=0, parameters={"target_step": 99})
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
small, large = tensors(200_000), tensors(d)
merge(small)
before = peak()
merge(large)
print(peak() - before)
"""
    grown = int(python(script).stdout)
    one_in_float32 = 4 * 4_000_000
    # T copies in float32 would be 24 of these, T copies as stored 12.
    assert grown < 3 * one_in_float32


# merge_state_dicts


def test_merge_state_dicts_takes_modules_and_dictionaries() -> None:
    base = make_state(make_config())
    states = trained(base, STEPS)
    models = dict(zip(IDS, [base, *states], strict=True))
    merged = merge_state_dicts(models, "relex", base="base", parameters={"target_step": 30})
    assert list(merged) == list(base)
    for name, result in merged.items():
        tensors = [base[name], *(s[name] for s in states)]
        assert np.allclose(float64(result), reference(tensors, 30), rtol=0, atol=1e-6)


def test_integer_buffers_are_copied_when_equal_and_refused_when_not() -> None:
    floats = inputs()
    counts = torch.arange(4)
    models = {i: {"w": t, "ids": counts.clone()} for i, t in zip(IDS, floats, strict=True)}
    merged = merge_state_dicts(models, "relex", base="base", parameters={"target_step": 30})
    assert torch.equal(merged["ids"], counts)
    models[IDS[2]]["ids"][1] = 9
    with pytest.raises(ValueError, match="ids"):
        merge_state_dicts(models, "relex", base="base", parameters={"target_step": 30})


# run_merge


@pytest.mark.parametrize("kind", ["qwen2", "llama", "qwen3_moe", "mixtral", "t5"])
def test_run_merge_by_name_on_every_kind_of_architecture(kind: str, tmp_path: Path) -> None:
    series = make_series(tmp_path, kind=kind, steps=(1, 2, 3))
    merged = by_mergekit(series.recipe(10), tmp_path / "out")
    assert worst_error(merged, expected(series, 10)) < 1e-6


def test_per_expert_checkpoints_are_merged_as_mergekit_reads_them(tmp_path: Path) -> None:
    series = make_series(tmp_path, kind="qwen3_moe", steps=(1, 2, 3))
    for folder in (series.base, *series.checkpoints):
        _split_experts(folder)
    merged = by_mergekit(series.recipe(10), tmp_path / "out")
    assert worst_error(merged, expected(series, 10)) < 1e-6


def test_parameters_filters_and_steps_of_a_recipe_reach_the_method(
    series: Series, tmp_path: Path
) -> None:
    recipe = series.recipe(None, rank=[{"filter": "mlp", "value": 2}, {"value": 1}])
    # Folders that name no step, and steps out of order: the recipe says them.
    recipe["models"].reverse()
    for entry, step in zip(recipe["models"], reversed(series.steps), strict=True):
        entry["parameters"] = {"step": step * 10}
    target = [{"filter": "embed_tokens", "value": 1000}, {"value": 200}]
    recipe["parameters"]["target_step"] = target
    merged = by_mergekit(recipe, tmp_path / "out")
    want = expected(series, 20)
    far, wide = expected(series, 100), expected(series, 20, rank=2)
    for name in want:
        if "embed_tokens" in name:
            want[name] = far[name]
        elif "mlp" in name:
            want[name] = wide[name]
    assert worst_error(merged, want) < 1e-6


@pytest.mark.parametrize("tied", [True, False])
def test_tied_embeddings_are_written_as_mergekit_writes_them(tied: bool, tmp_path: Path) -> None:
    series = make_series(tmp_path, steps=(1, 2, 3), tie_word_embeddings=tied)
    merged = by_mergekit(series.recipe(10), tmp_path / "out")
    assert ("lm_head.weight" in merged) is (not tied)
    assert worst_error(merged, expected(series, 10)) < 1e-6


@pytest.mark.parametrize(
    ("stored", "dtype", "out_dtype", "written"),
    [
        (torch.bfloat16, None, None, torch.bfloat16),
        (torch.bfloat16, "float32", None, torch.float32),
        (torch.float32, None, "bfloat16", torch.bfloat16),
        (torch.float32, "bfloat16", "float32", torch.float32),
        (torch.float16, "float32", "float16", torch.float16),
    ],
)
def test_dtype_and_out_dtype_follow_mergekits_rules(
    stored: torch.dtype,
    dtype: str | None,
    out_dtype: str | None,
    written: torch.dtype,
    tmp_path: Path,
) -> None:
    series = make_series(tmp_path, steps=(1, 2, 3), dtype=stored, scale=0.02)
    recipe = {**series.recipe(10), "dtype": dtype, "out_dtype": out_dtype}
    ours = relex_merge.extrapolate(recipe, tmp_path / "ours", quiet=True).out
    theirs = by_mergekit(recipe, tmp_path / "theirs")
    assert {w.dtype for w in theirs.values()} == {written}
    assert json.loads((ours / "config.json").read_text())["dtype"] == str(written)[6:]
    for name, weight in read_weights(ours).items():
        assert weight.dtype == written
        assert torch.equal(weight, theirs[name]), name


def _split_experts(folder: Path) -> None:
    """Rewrite a Qwen3-MoE checkpoint in the layout of the Hub: one matrix per expert."""
    state = read_weights(folder)
    split: dict[str, torch.Tensor] = {}
    for name, weight in state.items():
        stem, _, last = name.rpartition(".")
        if last == "gate_up_proj":
            for i, both in enumerate(weight):
                gate, up = both.chunk(2, dim=0)
                split[f"{stem}.{i}.gate_proj.weight"] = gate.contiguous()
                split[f"{stem}.{i}.up_proj.weight"] = up.contiguous()
        elif last == "down_proj" and stem.endswith("experts"):
            split |= {f"{stem}.{i}.down_proj.weight": w.contiguous() for i, w in enumerate(weight)}
        else:
            split[name] = weight
    from transformers import AutoConfig

    write_model(folder, AutoConfig.from_pretrained(folder), split)
