"""A sampled ``inspect`` of 75 checkpoints of Qwen2.5-1.5B's shapes over loopback HTTP.

    python -m tests.benchmarks.sampled_hub FOLDER [--checkpoints 75] [--json FILE]

The files are as long as real ones and hold numbers only where the sample looks: a line with noise,
in bfloat16. The rest are holes, so that 235 GB take about 1 GB of the disk. A server in a process
of its own plays the Hub; requests and bytes are taken from its log.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from relex_merge.trajectory.sampling.plan import draw_by_request
from relex_merge.trajectory.sampling.size import SHARE
from tests.benchmarks.stream import REPO, served
from tests.support.models import make_config, write_recipe

SHAPE: dict[str, Any] = {
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "dtype": "bfloat16",
}
SCALE = 3e-4  # of the update of a weight over the whole series
SPREAD = 0.02  # of the base's weights


def shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """The tensors of a checkpoint, in the order of their names, as its file has them."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    config.architectures = [type(model).__name__]
    tied = set(model.all_tied_weights_keys)
    return {n: tuple(w.shape) for n, w in sorted(model.state_dict().items()) if n not in tied}


def write_series(root: Path, checkpoints: int) -> None:
    """Write base and checkpoints below ``root``, unless they are there."""
    if (root / "base").is_dir():
        return
    config = make_config(**SHAPE)
    numels: dict[str, int] = {}
    header: dict[str, dict[str, Any]] = {}
    end = 0
    for name, shape in shapes(config).items():
        numels[name] = torch.Size(shape).numel()
        offsets = [end, end + 2 * numels[name]]
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": offsets}
        end = offsets[1]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    begin = 8 + len(text)
    wanted = int(SHARE * sum(numels.values()))
    plan = draw_by_request(list(numels), list(numels.values()), wanted)
    pieces = [piece for cell in plan.drawn for piece in cell.pieces]
    names = list(numels)
    places = [
        (begin + header[names[p.tensor]]["data_offsets"][0] + 2 * p.start, p.stop - p.start)
        for p in pieces
    ]
    count = sum(n for _, n in places)
    draw = torch.Generator().manual_seed(0)
    base = (SPREAD * torch.randn(count, generator=draw)).bfloat16().float()
    direction = torch.randn(count, generator=draw)
    for step in range(checkpoints + 1):
        noise = 0.1 * torch.randn(count, generator=draw) if step else 0.0
        along = step / max(checkpoints, 1)
        data = (base + SCALE * (along * direction + noise) * bool(step)).bfloat16()
        folder = root / (f"step_{step}" if step else "base")
        folder.mkdir(parents=True)
        config.save_pretrained(folder)
        with (folder / "model.safetensors").open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            done = 0
            for start, length in places:
                file.seek(start)
                file.write(data[done : done + length].view(torch.uint8).numpy().data)
                done += length
            file.truncate(begin + end)


def measure(root: Path, checkpoints: int) -> dict[str, Any]:
    """Seconds, requests and bytes of one command, in a process of its own."""
    write_series(root, checkpoints)
    with served(root) as endpoint, tempfile.TemporaryDirectory() as scratch:
        recipe = {
            "merge_method": "relex",
            "base_model": f"{REPO}@base",
            "models": [{"model": f"{REPO}@step_{{1..{checkpoints}}}"}],
            "parameters": {"target_step": 4 * checkpoints},
        }
        path = write_recipe(Path(scratch, "recipe.yml"), recipe)
        environment = {"HF_ENDPOINT": endpoint, "HF_HOME": scratch, "HF_HUB_DISABLE_XET": "1"}
        command = [sys.executable, "-c", "from relex_merge.cli.main import main; main()"]
        command += ["inspect", str(path), "--quiet"]
        begin = time.perf_counter()
        done = subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, check=True
        )
        seconds = time.perf_counter() - begin
        cached = sum(p.stat().st_size for p in Path(scratch).rglob("*") if p.is_file())
        with urllib.request.urlopen(f"{endpoint}/_log") as answer:
            log = [json.loads(line) for line in answer]
    weights = [entry for entry in log if (entry["file"] or "").endswith(".safetensors")]
    counts = Counter(entry["commit"] for entry in weights)
    whole = sum(p.stat().st_size for p in root.rglob("*.safetensors"))
    return {
        "seconds": seconds,
        "requests_of_a_checkpoint": max(counts.values()),
        "requests": len(log),
        "bytes": sum(entry["sent"] for entry in log),
        "bytes_of_all": whole,
        "bytes_in_the_cache": cached,
        "said": done.stderr.strip(),
        "shown": done.stdout.splitlines()[:7],
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoints", type=int, default=75)
    parser.add_argument("--json", type=Path, help="where to write all figures")
    arguments = parser.parse_args()
    found = measure(arguments.folder.resolve(), arguments.checkpoints)
    print(found["said"], *found["shown"], sep="\n")
    print(
        f"{found['seconds']:.0f} s (goal 120), {found['requests_of_a_checkpoint']} requests for "
        f"the weights of a checkpoint (goal 40), {found['requests']} in all, "
        f"{found['bytes'] / 1e9:.2f} of {found['bytes_of_all'] / 1e9:.0f} GB, "
        f"{found['bytes_in_the_cache'] / 1e6:.1f} MB in the cache"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
