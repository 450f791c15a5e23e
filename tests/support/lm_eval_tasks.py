"""Small tasks for lm-evaluation-harness: a YAML and a JSONL file below a folder, no network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml


def write_task(
    folder: Path, name: str, documents: Sequence[Mapping[str, Any]], **changes: Any
) -> Path:
    """Write a task that asks ``q`` and expects ``a``; returns the folder for ``include_path``."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(document) + "\n" for document in documents))
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(data)},
            "cache_dir": str(folder / "cache"),
        },
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{q}}",
        "doc_to_target": "{{a}}",
        "generation_kwargs": {"until": ["."], "do_sample": False, "max_gen_toks": 4},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({**config, **changes}))
    return folder


def choice_task(folder: Path, name: str, documents: Sequence[Mapping[str, Any]]) -> Path:
    """Write a multiple-choice task: ``q``, ``choices``, and ``a``, the number of the right one."""
    metrics = [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in _CHOICE]
    return write_task(
        folder,
        name,
        documents,
        output_type="multiple_choice",
        doc_to_choice="{{choices}}",
        doc_to_target="{{a}}",
        generation_kwargs=None,
        metric_list=metrics,
    )


_CHOICE = ("acc", "acc_norm")
