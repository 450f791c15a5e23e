"""Tiny models and checkpoint series on disk, made in milliseconds, and what RELEX makes of them.

The folders are ordinary ones: transformers writes the configurations, tokenizers the tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.support.reference import naive_reconstruction, naive_relex

State: TypeAlias = dict[str, torch.Tensor]

STEPS = (1, 2, 4, 7, 9)
TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
_SHAPE = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
_EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}


@dataclass(frozen=True)
class Series:
    """A base and its checkpoints on disk, in the order of ``steps``; states as they were saved."""

    base: Path
    checkpoints: tuple[Path, ...]
    steps: tuple[float, ...]
    base_state: State
    states: tuple[State, ...]

    def recipe(self, target_step: float | None = 20, **parameters: Any) -> dict[str, Any]:
        """The recipe of this series as a YAML structure."""
        if target_step is not None:
            parameters["target_step"] = target_step
        return {
            "merge_method": "relex",
            "base_model": str(self.base),
            "models": [{"model": str(folder)} for folder in self.checkpoints],
            "parameters": parameters,
        }


def write_recipe(path: Path, recipe: Mapping[str, Any]) -> Path:
    """Save a YAML structure; returns the path."""
    path.write_text(yaml.safe_dump(dict(recipe), sort_keys=False), encoding="utf-8")
    return path


def make_config(kind: str = "qwen2", **changes: Any) -> Any:
    """A transformers configuration of a model of a few thousand parameters."""
    from transformers import AutoConfig

    shape = {**_SHAPE, "tie_word_embeddings": True, "dtype": "float32"}
    if kind in {"qwen3_moe", "mixtral"}:
        shape |= {**_EXPERTS, "moe_intermediate_size": 12}
    if kind == "t5":
        shape = {"vocab_size": 64, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2}
        shape |= {"num_decoder_layers": 2, "num_heads": 2, "dtype": "float32"}
        shape |= {"feed_forward_proj": "gated-gelu"}  # mergekit knows T5 v1.1
    return AutoConfig.for_model(kind, **{**shape, **changes})


def make_state(config: Any, seed: int = 0) -> State:
    """The weights of a new model as ``save_pretrained`` would name and store them."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = auto.from_config(config)
    config.architectures = [type(model).__name__]
    tied = set(getattr(model, "all_tied_weights_keys", ()))
    noise = torch.Generator().manual_seed(seed)
    state = {n: w.detach().clone() for n, w in model.state_dict().items() if n not in tied}
    # Norms and biases start at 1 and 0; trained ones do not.
    return {n: w + 0.02 * torch.randn(w.shape, generator=noise) for n, w in state.items()}


def trained(
    state: State, steps: Sequence[float], *, scale: float = 1e-3, seed: int = 1
) -> list[State]:
    """A state for each step: along one direction per tensor, with noise, nearly a line."""
    noise = torch.Generator().manual_seed(seed)
    direction = {n: torch.randn(w.shape, generator=noise) for n, w in state.items()}
    states = []
    for step in steps:
        moved = {}
        for name, weight in state.items():
            wobble = 0.3 * torch.randn(weight.shape, generator=noise)
            moved[name] = weight + scale * (step * direction[name] + wobble)
        states.append(moved)
    return states


def cast(state: State, dtype: torch.dtype) -> State:
    """The floating tensors of a state in another dtype."""
    return {n: w.to(dtype) if w.is_floating_point() else w for n, w in state.items()}


def write_model(
    folder: Path,
    config: Any,
    state: State,
    *,
    shards: int = 1,
    tokenizer: bool = False,
    template: str | None = None,
    generation: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model folder; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    write_weights(folder, state, shards)
    if tokenizer:
        write_tokenizer(folder, template)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def write_weights(folder: Path, state: State, shards: int = 1) -> None:
    """Safetensors files, with an index when there are several."""
    if shards == 1:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = list(state)
    weight_map: dict[str, str] = {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: state[name] for name in names[i::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def write_tokenizer(folder: Path, template: str | None = None) -> None:
    """A tokenizer of 64 characters, with a chat template when one is given."""
    from transformers import Qwen2Tokenizer

    characters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?<>|=+-*/()_[]{}:;'#$%&@"
    vocabulary = ["<|endoftext|>", "\u0120", *characters][:64]
    tokenizer = Qwen2Tokenizer(vocab={c: i for i, c in enumerate(vocabulary)}, merges=[])
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)


def make_series(
    root: Path,
    *,
    kind: str = "qwen2",
    steps: Sequence[float] = STEPS,
    dtype: torch.dtype = torch.float32,
    shards: int = 1,
    seed: int = 0,
    scale: float = 1e-3,
    tokenizers: bool = False,
    **changes: Any,
) -> Series:
    """Write a base and a checkpoint for each step below ``root``.

    The base has a tokenizer; with ``tokenizers`` the checkpoints have it too.
    """
    config = make_config(kind, **changes)
    base_state = make_state(config, seed)
    states = [cast(s, dtype) for s in trained(base_state, steps, scale=scale, seed=seed + 1)]
    base_state = cast(base_state, dtype)
    config.dtype = dtype
    base = write_model(root / "base", config, base_state, shards=shards, tokenizer=True)
    folders = tuple(
        write_model(root / f"step_{step}", config, state, shards=shards, tokenizer=tokenizers)
        for step, state in zip(steps, states, strict=True)
    )
    return Series(base, folders, tuple(steps), base_state, tuple(states))


def float64(tensor: torch.Tensor) -> npt.NDArray[np.float64]:
    """The numbers of a tensor, flat, in float64."""
    return np.asarray(tensor.to(torch.float64).reshape(-1).numpy())


def expected(
    series: Series,
    target: float = 20,
    *,
    rank: int = 1,
    degree: int = 1,
    window: int | None = None,
    mode: str = "extrapolate",
) -> dict[str, npt.NDArray[np.float64]]:
    """θ̂ of every tensor, flat, by numpy's SVD of the explicit deltas in float64."""
    steps = np.asarray(series.steps, dtype=np.float64)
    result = {}
    for name, weight in series.base_state.items():
        base = float64(weight)
        M = np.stack([float64(state[name]) - base for state in series.states])
        if mode == "reconstruct":
            delta = naive_reconstruction(M, series.steps.index(target), rank)
        else:
            delta = naive_relex(M, steps, target, rank, degree, window)
        result[name] = base + delta
    return result


def read_weights(folder: Path) -> State:
    """All tensors of a folder's safetensors files."""
    state: State = {}
    for file in sorted(folder.glob("*.safetensors")):
        if file.name.startswith("model"):
            state |= load_file(file)
    return state


def worst_error(
    state: Mapping[str, torch.Tensor], reference: Mapping[str, npt.NDArray[np.float64]]
) -> float:
    """The largest |difference| ⁄ max |reference| over tensors; names must be the same."""
    assert set(state) == set(reference)
    return max(
        float(np.abs(float64(state[n]) - r).max() / np.abs(r).max()) for n, r in reference.items()
    )
