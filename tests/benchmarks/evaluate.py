"""What an evaluation without labels costs: a random model, few checkpoints, prompts, responses.

    python -m tests.benchmarks.evaluate                    # 268 M parameters, 6 checkpoints in bf16
    python -m tests.benchmarks.evaluate --small            # a minute at most, to try it

The model is a Gemma 3 of the size of google/gemma-3-270m with random weights: 168 M of its 268 M
numbers are the embedding of 262,144 tokens, so the logits are wide. Its checkpoints lie along a
noisy line. Prompts are words of a tokenizer made here; every response has the full length, since
the model has no end token. The command is ``relex-merge evaluate RECIPE --prompts FILE``, run as a
process of its own and watched from outside.

It prints its own forecast, then seconds (of the whole process, start and imports included), peak
memory (without shared pages, and with them: mapped files), what the folder for temporary files held
at most, and the bytes that came through read calls (mapped files come through page faults).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.torch import save_file

from relex_merge.formatting import size, table

PERIOD = 0.1  # seconds between looks


@dataclass(frozen=True)
class Size:
    """How large everything is. length: tokens of a prompt, and as many of its response."""

    vocabulary: int = 262_144
    hidden: int = 640
    intermediate: int = 2048
    layers: int = 18
    head: int = 256
    checkpoints: int = 6
    prompts: int = 64
    length: int = 64


SMALL = Size(vocabulary=2048, hidden=64, intermediate=128, layers=2, head=16, prompts=8, length=16)


def make_config(wanted: Size) -> Any:
    """Return the configuration of a Gemma 3 text model."""
    from transformers import Gemma3TextConfig

    return Gemma3TextConfig(
        vocab_size=wanted.vocabulary,
        hidden_size=wanted.hidden,
        intermediate_size=wanted.intermediate,
        num_hidden_layers=wanted.layers,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=wanted.head,
        sliding_window=512,
        max_position_embeddings=4096,
        eos_token_id=None,
        bos_token_id=None,
        dtype="bfloat16",
    )


def make_run(folder: Path, wanted: Size) -> int:
    """Write base, checkpoints, recipe and prompts; returns the numbers of one model."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(make_config(wanted)).to(torch.bfloat16)
    model.generation_config.eos_token_id = None
    base = folder / "base"
    model.save_pretrained(base)
    write_tokenizer(base, wanted.vocabulary)
    state = {n: w for n, w in model.state_dict().items() if n != "lm_head.weight"}
    directions = {n: torch.randn(w.shape, dtype=torch.bfloat16) for n, w in state.items()}
    for step in range(1, wanted.checkpoints + 1):
        target = folder / f"step_{step}"
        target.mkdir()
        moved = {}
        for name, weight in state.items():
            noise = torch.randn(weight.shape, dtype=torch.bfloat16)
            moved[name] = weight + 2e-4 * (step * directions[name] + noise)
        save_file(moved, target / "model.safetensors", metadata={"format": "pt"})
        (target / "config.json").write_bytes((base / "config.json").read_bytes())
    (folder / "recipe.yml").write_text(
        f"merge_method: relex\nbase_model: {base}\nmodels:\n"
        f"  - model: {folder}/step_{{1..{wanted.checkpoints}}}\n"
        f"parameters:\n  target_step: {wanted.checkpoints * 1.4:g}\nout_dtype: bfloat16\n",
        encoding="utf-8",
    )
    lines = (
        " ".join(f"t{(37 * row + place) % wanted.vocabulary}" for place in range(wanted.length))
        for row in range(wanted.prompts)
    )
    (folder / "prompts.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return sum(w.numel() for w in state.values())


def write_tokenizer(folder: Path, vocabulary: int) -> None:
    """Write a tokenizer with a word for each token, t0, t1 and so on."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = {f"t{number}": number for number in range(vocabulary)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="t0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="t0").save_pretrained(folder)


def watch(command: list[str], scratch: Path) -> dict[str, str]:
    """Run a command to the end and tell what it cost.

    Args:
        command: the program and its arguments.
        scratch: its folder for temporary files.
    """
    start = time.perf_counter()
    environment = {**os.environ, "TMPDIR": str(scratch)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    anonymous = resident = disk = read = 0
    while process.poll() is None:
        try:
            watched = psutil.Process(process.pid)
            memory = watched.memory_info()
            anonymous = max(anonymous, memory.rss - memory.shared)
            resident = max(resident, memory.rss)
            read = max(read, watched.io_counters().read_chars)
        except psutil.NoSuchProcess:
            break
        disk = max(disk, _allocated(scratch) + _unlinked(process.pid, scratch))
        time.sleep(PERIOD)
    if process.wait():
        sys.exit(f"{' '.join(command)} failed")
    return {
        "seconds": f"{time.perf_counter() - start:.1f}",
        "peak memory": f"{size(anonymous)} of its own, {size(resident)} with mapped files",
        "scratch disk": size(disk),
        "bytes read": f"{size(read)} through read calls",
    }


def _allocated(folder: Path) -> int:
    """Return the bytes of a folder's files on the disk."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_blocks * 512
        except OSError:  # gone in the meantime
            continue
    return total


def _unlinked(pid: int, folder: Path) -> int:
    """Return the bytes of open files in a folder that have no name any more."""
    found: dict[int, int] = {}  # a mapped file has a descriptor of its own for the same inode
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            target = str(link.readlink())
            if target.startswith(str(folder)) and target.endswith(" (deleted)"):
                stat = link.stat()
                found[stat.st_ino] = stat.st_blocks * 512
    except OSError:  # the process has ended
        pass
    return sum(found.values())


def main() -> None:
    """Make the series, evaluate it, and print what that cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a tiny model, to try it")
    parser.add_argument("--prompts", type=int, help="how many")
    parser.add_argument("--length", type=int, help="tokens of a prompt, and of its response")
    parser.add_argument("--folder", type=Path, help="keep the series here, and use it again")
    parser.add_argument("options", nargs="*", help="further options of evaluate, after --")
    asked = parser.parse_args()
    given = {name: getattr(asked, name) for name in ("prompts", "length") if getattr(asked, name)}
    wanted = replace(SMALL if asked.small else Size(), **given)
    with tempfile.TemporaryDirectory(prefix="relex-bench-") as made:
        folder = asked.folder or Path(made)
        if not (folder / "recipe.yml").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            print(f"{make_run(folder, wanted):,} numbers a model", flush=True)
        scratch = folder / "tmp"
        scratch.mkdir(exist_ok=True)
        program = str(Path(sys.executable).with_name("relex-merge"))
        command = [
            *(
                program,
                "evaluate",
                str(folder / "recipe.yml"),
                "--prompts",
                str(folder / "prompts.txt"),
            ),
            *("--max-new-tokens", str(wanted.length), *asked.options),
        ]
        forecast = subprocess.run(
            [*command, "--dry-run", "--quiet"], check=True, capture_output=True
        )
        print(forecast.stdout.decode(), flush=True)
        print(table(watch(command, scratch)))


if __name__ == "__main__":
    main()
