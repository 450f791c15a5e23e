"""A finished output made by hand, and a repo to push it to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import numpy as np
import yaml
from safetensors.numpy import save_file

from relex_merge.report.contents import Report
from relex_merge.report.model_card import model_card
from tests.fake_hub.server import Hub

REPO = "tester/series"
REVISION = "relex-step-1000"
SECRETS = ("/home/jane", "jane", "hf_SomebodysTokenInAText")
# Files that name local folders, so that what is pushed differs from what is on disk.
REWRITTEN = {"README.md", "mergekit_config.yml", "relex_report.json", "config.json"}


def seed_series(hub: Hub) -> dict[str, bytes]:
    """Makes a repo that holds a training run; returns the files of ``main``."""
    files = {
        "README.md": b"# the run\n",
        "config.json": b'{"model_type": "qwen2"}',
        "model-00003-of-00003.safetensors": b"stale",
        "optimizer/state.pt": b"stale",
        ".gitignore": b"*.safetensors\n",
    }
    hub.commit(REPO, files)
    hub.branch(REPO, "step_1")
    return files


def make_report() -> Report:
    """A report of a run whose checkpoints lie in two local folders of the same name."""
    figures = {"min": 0.9, "mean": 0.95, "max": 0.99, "model": 0.96}
    measures = ("explained_variance", "r2", "straightness", "backtest_skill")
    method = {"name": "relex", "rank": 1, "degree": 1, "window": None, "mode": "extrapolate"}
    report = {
        "method": method,
        "base": {"reference": "/home/jane/base", "sha": None},
        "checkpoints": [
            {"reference": f"/home/jane/{run}/checkpoint-50", "step": step, "sha": None}
            for step, run in ((50, "run_a"), (60, "run_b"))
        ],
        "target_step": 1000.0,
        "summary": dict.fromkeys(measures, figures),
        "tensors": {},
        "verdict": {
            "verdict": "caution",
            "reasons": ["/home/jane/run_a/checkpoint-50: odd, asked with hf_SomebodysTokenInAText"],
        },
        "versions": {"relex-merge": "0.1.0"},
    }
    return cast("Report", report)


def make_output(folder: Path, *, value: float = 1.0) -> Path:
    """A finished output of two shards, every tensor filled with ``value``."""
    folder.mkdir(parents=True)
    weight_map = {}
    for number in (1, 2):
        shard = f"model-{number:05}-of-00002.safetensors"
        tensor = np.full((number, 4), value, np.float32)
        save_file({f"w{number}": tensor}, folder / shard)
        weight_map[f"w{number}"] = shard
    report = make_report()
    models = [{"model": item["reference"]} for item in report["checkpoints"]]
    recipe = yaml.safe_dump(
        {"merge_method": "relex", "base_model": "/home/jane/base", "models": models}
    )
    texts = {
        "model.safetensors.index.json": json.dumps({"metadata": {}, "weight_map": weight_map}),
        "config.json": json.dumps({"model_type": "qwen2", "_name_or_path": "/home/jane/base"}),
        "tokenizer.json": json.dumps({"vocab": {"/usr/bin/env": 0}}),
        "mergekit_config.yml": recipe,
        "relex_report.json": json.dumps(report),
        "README.md": model_card(report, recipe, name="out") + "Made in /home/jane/out\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Return path -> content of every file below ``folder``."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def assert_holds(hub: Hub, revision: str, folder: Path) -> None:
    """The revision holds exactly the output; the rewritten texts are looked at elsewhere."""
    there, here = hub.files(REPO, revision), contents(folder)
    assert there.keys() == here.keys()
    assert {k: v for k, v in there.items() if k not in REWRITTEN} == {
        k: v for k, v in here.items() if k not in REWRITTEN
    }
