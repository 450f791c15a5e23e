"""Make a series of checkpoints of any size: a Qwen2 base and T steps along a noisy line.

    python -m tests.benchmarks.make_series FOLDER --checkpoints 40 --hidden 512 --layers 12

writes FOLDER/base and FOLDER/step_1 … step_T, ordinary model folders in bf16 (70 M parameters with
the defaults), and FOLDER/recipe.yml. Every number of the update is δ_t = t·v + noise, large enough
to survive the rounding to bf16.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file


def make_series(
    folder: Path,
    *,
    checkpoints: int,
    hidden: int = 512,
    layers: int = 12,
    vocabulary: int = 64_000,
    dtype: torch.dtype = torch.bfloat16,
    seed: int = 0,
    spacing: int = 1,
) -> int:
    """Write the series; returns the number of parameters of one model."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=max(hidden // 64, 1),
        num_key_value_heads=max(hidden // 128, 1),
        tie_word_embeddings=True,
        dtype=dtype,
    )
    model = Qwen2ForCausalLM(config).to(dtype)
    base = folder / "base"
    model.save_pretrained(base)
    names = [n for n in model.state_dict() if n != "lm_head.weight"]
    state = {n: model.state_dict()[n].float() for n in names}
    directions = {n: torch.randn_like(w) * 2e-4 for n, w in state.items()}
    for t in range(1, checkpoints + 1):
        target = folder / f"step_{t * spacing}"
        target.mkdir(parents=True)
        step = {}
        for name, weight in state.items():
            noise = torch.randn_like(weight) * 2e-4
            step[name] = (weight + t * directions[name] + noise).to(dtype)
        save_file(step, target / "model.safetensors", metadata={"format": "pt"})
        for file in ("config.json", "generation_config.json"):
            shutil.copyfile(base / file, target / file)
    (folder / "recipe.yml").write_text(
        f"merge_method: relex\nbase_model: {base}\nmodels:\n"
        f"  - model: {folder}/step_{{{spacing}..{checkpoints * spacing}..{spacing}}}\n"
        f"parameters:\n  target_step: {checkpoints * spacing * 5}\n",
        encoding="utf-8",
    )
    return sum(w.numel() for w in state.values())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoints", type=int, default=40)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--vocabulary", type=int, default=64_000)
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    arguments = parser.parse_args()
    count = make_series(
        arguments.folder.resolve(),
        checkpoints=arguments.checkpoints,
        hidden=arguments.hidden,
        layers=arguments.layers,
        vocabulary=arguments.vocabulary,
        dtype=getattr(torch, arguments.dtype),
    )
    print(f"{arguments.checkpoints} checkpoints of {count:,} parameters in {arguments.folder}")


if __name__ == "__main__":
    main()
