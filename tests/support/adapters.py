"""Series of LoRA adapters written by PEFT itself, and what PEFT makes of them in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tests.support.models import STEPS, float64, make_config, make_state, write_model
from tests.support.reference import naive_relex

QWEN = {"target_modules": ["q_proj", "k_proj", "o_proj", "down_proj"]}
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "n_inner": 24},
}


@dataclass(frozen=True)
class Adapters:
    """A base and one adapter for each step."""

    base: Path
    folders: tuple[Path, ...]
    steps: tuple[int, ...]

    def recipe(self, target: float = 20, **parameters: Any) -> dict[str, Any]:
        """The recipe of this series as a YAML structure."""
        return {
            "merge_method": "relex",
            "base_model": str(self.base),
            "models": [{"model": str(folder)} for folder in self.folders],
            "parameters": {"target_step": target, **parameters},
        }


def make_base(folder: Path, kind: str = "qwen2", **changes: Any) -> Path:
    """A tiny model with a tokenizer."""
    config = make_config(kind, **{**SHAPES.get(kind, {}), **changes})
    return write_model(folder, config, make_state(config), tokenizer=True)


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The model in a folder."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def make_adapters(
    root: Path,
    *,
    kind: str = "qwen2",
    steps: Sequence[int] = STEPS,
    ranks: Sequence[int] | None = None,
    model: dict[str, Any] | None = None,
    **settings: Any,
) -> Adapters:
    """Train nothing, but move the factors as training would: along a line, with noise.

    ranks: a rank for each step, where they differ. settings: of LoraConfig.
    """
    from peft import LoraConfig, get_peft_model

    base = make_base(root / "base", kind, **(model or {}))
    folders = []
    for position, step in enumerate(steps):
        rank = ranks[position] if ranks else settings.get("r", 4)
        config = LoraConfig(
            **{"lora_alpha": 6, "task_type": "CAUSAL_LM", **QWEN, **settings, "r": rank}
        )
        torch.manual_seed(0)
        wrapped = get_peft_model(load(base), config)
        line, noise = torch.Generator().manual_seed(1), torch.Generator().manual_seed(step + 2)
        with torch.no_grad():
            for _, weight in wrapped.named_parameters():
                if weight.requires_grad:
                    direction = torch.randn(weight.shape, generator=line)
                    wobble = torch.randn(weight.shape, generator=noise)
                    weight.add_(1e-2 * (step * direction + 0.3 * wobble))
        wrapped.save_pretrained(root / f"checkpoint-{step}")
        folders.append(root / f"checkpoint-{step}")
    return Adapters(base, tuple(folders), tuple(steps))


def merged(base: Path, adapter: Path | None) -> dict[str, npt.NDArray[np.float64]]:
    """Every weight of the base with an adapter merged into it by PEFT, in float64, as matrices."""
    from peft import PeftModel

    model = load(base, torch.float64)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter).double().merge_and_unload()
    return {name: weight.double().numpy() for name, weight in model.state_dict().items()}


@cache
def deltas(series: Adapters) -> dict[str, npt.NDArray[np.float64]]:
    """M (T × d) of every weight that moves, from PEFT's merged models.

    Computed once for a series, which no test changes.
    """
    base = merged(series.base, None)
    rows = [merged(series.base, folder) for folder in series.folders]
    M = {n: np.stack([(row[n] - w).reshape(-1) for row in rows]) for n, w in base.items()}
    return {name: matrix for name, matrix in M.items() if np.any(matrix)}


def extrapolated(series: Adapters, target: float = 20) -> dict[str, npt.NDArray[np.float64]]:
    """θ̂ − θ₀ of every weight that moves, flat, by numpy's SVD of the explicit deltas."""
    steps = np.asarray(series.steps, dtype=np.float64)
    return {name: naive_relex(M, steps, target, 1) for name, M in deltas(series).items()}


def change(base: Path, model: Path) -> dict[str, npt.NDArray[np.float64]]:
    """θ − θ₀ of every weight of a full model, flat."""
    own, start = load(model).state_dict(), load(base).state_dict()
    return {name: float64(own[name]) - float64(w) for name, w in start.items()}


def farthest(
    found: dict[str, npt.NDArray[np.float64]], wanted: dict[str, npt.NDArray[np.float64]]
) -> float:
    """The largest ‖found − wanted‖ / ‖wanted‖ over the weights of ``wanted``."""
    return max(
        float(np.linalg.norm(found[name].reshape(-1) - w) / np.linalg.norm(w))
        for name, w in wanted.items()
    )
