"""A series of LoRA adapters: relex-merge, the time to read its bytes, and mergekit's own path.

    python -m tests.benchmarks.lora FOLDER [--checkpoints 75] [--rank 32] [--layers 28]

makes FOLDER/base (the shapes of Qwen2.5-1.5B, bf16) and FOLDER/checkpoint-1 … -T (PEFT's files,
float32) unless they are there, then prints wall time, peak memory and disk. mergekit merges every
adapter into a full model first; that is measured on ``--merged`` checkpoints and multiplied, since
75 merged models need 230 GB. (Its own time per checkpoint grows with their number, so the product
is too small, if anything.)
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.benchmarks.compare import scratch, timed
from tests.benchmarks.measure import Measured, measure, table

KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def make_base(folder: Path, layers: int) -> None:
    """The shapes of Qwen2.5-1.5B, weights drawn at random, bf16."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=151_936,
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=layers,
        num_attention_heads=12,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        dtype=torch.bfloat16,
    )
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config)
    model = model.to(torch.bfloat16).to_empty(device="cpu")
    torch.manual_seed(0)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.02)
    model.tie_weights()
    model.save_pretrained(folder)


def make_adapters(folder: Path, base: Path, checkpoints: int, rank: int) -> None:
    """Factors that move along a line with noise, B from 0, as in training."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=list(KINDS),
        task_type="CAUSAL_LM",
        base_model_name_or_path=str(base),
    )
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))
        wrapped = get_peft_model(empty, config)
    shapes = {
        name.replace(".default", ""): tuple(weight.shape)
        for name, weight in wrapped.named_parameters()
        if "lora_" in name
    }
    torch.manual_seed(1)
    start = {n: torch.randn(s) / s[1] ** 0.5 * ("lora_A" in n) for n, s in shapes.items()}
    line = {n: torch.randn(s) * 1e-4 for n, s in shapes.items()}
    for step in range(1, checkpoints + 1):
        target = folder / f"checkpoint-{step}"
        target.mkdir(parents=True)
        state = {
            n: start[n] + step * line[n] + 1e-4 * torch.randn(shape) for n, shape in shapes.items()
        }
        save_file(state, target / "adapter_model.safetensors", metadata={"format": "pt"})
        config.save_pretrained(target)


def recipe(folder: Path, references: str, target: int) -> str:
    """The text of a recipe."""
    return (
        f"merge_method: relex\nbase_model: {folder}/base\nmodels:\n  - model: {references}\n"
        f"parameters:\n  target_step: {target}\n"
    )


def scaled(measured: Measured, factor: float) -> Measured:
    """Time and disk of ``factor`` times as many checkpoints."""
    return replace(
        measured,
        wall=measured.wall * factor,
        inner=None if measured.inner is None else measured.inner * factor,
        read=int(measured.read * factor),
        written=int(measured.written * factor),
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoints", type=int, default=75)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--merged", type=int, default=3, help="checkpoints that mergekit merges")
    arguments = parser.parse_args()
    folder, T = arguments.folder.resolve(), arguments.checkpoints
    if not folder.exists():
        make_base(folder / "base", arguments.layers)
        make_adapters(folder, folder / "base", T, arguments.rank)
    files = [str(file) for file in sorted(folder.glob("*/adapter_model.safetensors"))]
    print(f"{T} adapters, {sum(Path(f).stat().st_size for f in files) / 1e9:.2f} GB")

    rows: dict[str, Measured] = {}
    measure(["cat", *files])
    rows["cat, warm"] = measure(["cat", *files])
    with scratch() as work:
        ours, few = work / "recipe.yml", work / "few.yml"
        ours.write_text(recipe(folder, f"{folder}/checkpoint-{{1..{T}}}", 10 * T))
        chosen = f"{{{T // arguments.merged}..{T}..{T // arguments.merged}}}"
        few.write_text(recipe(folder, f"{folder}/base+{folder}/checkpoint-{chosen}", 10 * T))
        rows["relex-merge run"] = timed("engine", str(ours))
        command = [str(Path(sys.executable).with_name("relex-merge")), "run", str(ours)]
        rows["relex-merge run, command"] = measure(
            [*command, str(work / "out"), "--yes", "--quiet"]
        )
        some = timed("mergekit", str(few))
    rows[f"mergekit, {arguments.merged} checkpoints"] = some
    rows[f"mergekit, times {T}/{arguments.merged}"] = scaled(some, T / arguments.merged)
    print(table(rows, "cat, warm"))
    print(json.dumps({name: vars(row) for name, row in rows.items()}))


if __name__ == "__main__":
    main()
