"""The held-out problems as a task of lm-evaluation-harness, for ``evaluate --tasks``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import yaml

from relex_merge.demo.tasks import Task
from relex_merge.errors import disk_errors
from relex_merge.evaluation.split import reported_part


def task_name(name: str) -> str:
    """Return what lm-evaluation-harness calls the demo's task of that name."""
    return f"relex_demo_{name}"


def write_task(folder: Path, name: str, task: Task, problems: Sequence[str]) -> None:
    """Write ``NAME.yaml`` and ``problems.jsonl`` into a folder for ``--include-path``.

    Each problem has a ``prompt``, the right ``answer``, and the ``part`` that it has in the demo's
    own measured choice: it ``chooses``, or is ``reported``.

    Args:
        folder: made if there is none.
        name: of the task, as ``--task`` has it.
        task: solves the problems.
        problems: held out from training.

    Raises:
        RelexError: a file cannot be written.
    """
    reported = set(reported_part(name, problems))
    data = folder / "problems.jsonl"
    config = {
        "task": task_name(name),
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": "",
        "generation_kwargs": {
            "until": ["<eos>"],
            "do_sample": False,
            "max_gen_toks": task.answer_length + 1,
        },
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1},
    }
    lines = (
        json.dumps(
            {
                "prompt": prompt,
                "answer": task.solve(prompt),
                "part": "reported" if prompt in reported else "chooses",
            }
        )
        for prompt in problems
    )
    with disk_errors(folder):
        folder.mkdir(exist_ok=True)
        data.write_text("\n".join(lines) + "\n", encoding="utf-8")
        text = yaml.safe_dump(config, sort_keys=False)
        (folder / f"{task_name(name)}.yaml").write_text(text, encoding="utf-8")
