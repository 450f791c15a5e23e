"""What an evaluation found about a model, as the Hub's metadata: only what had no part in choosing.

The front matter of a card has all tasks (``model-index``). ``.eval_results/*.yaml`` feeds the
leaderboards of benchmarks that the Hub registers, so it has those benchmarks alone, and its notes
say that part of the questions is left out. See https://huggingface.co/docs/hub/eval-results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from relex_merge.report.contents import Report
from relex_merge.report.evaluated import measured, reported
from relex_merge.report.evaluation import DatasetEntry, Evaluation, TaskEntry

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

# Dataset and configuration, as lm-eval loads them → task id in the dataset's eval.yaml. The other
# registered benchmarks are no task of lm-eval, or only many tasks together.
BENCHMARKS = {
    ("openai/gsm8k", "main"): "gsm8k",
    ("Idavidrein/gpqa", "gpqa_diamond"): "gpqa_diamond",
}
PART = "reported: chosen by a hash of the question, no part in choosing the model"
_ELSEWHERE: DatasetEntry = {"dataset": None, "config": None, "split": None}


def eval_results(report: Report) -> list[EvalResult]:
    """Return a result for each task that the model of a report was measured on."""
    from huggingface_hub import EvalResult

    evaluation = report.get("evaluation")
    if evaluation is None:
        return []
    results = []
    for task, entry in _measured(report, evaluation).items():
        metric, _, filter_ = entry["metric"].partition(",")
        dataset = evaluation.get("datasets", {}).get(task, _ELSEWHERE)
        results.append(
            EvalResult(
                task_type="text-generation",
                dataset_type=dataset["dataset"] or task,
                dataset_name=task,
                dataset_config=dataset["config"],
                dataset_split=dataset["split"],
                dataset_args={"part": PART, "questions": entry["n"]},
                metric_type=metric,
                metric_name=f"{metric}, {filter_}" if filter_ else metric,
                metric_value=entry["score"],
                metric_args={"repeats": entry["repeats"], **_stderr(entry)},
            )
        )
    return results


def benchmark_files(report: Report) -> dict[str, str]:
    """Return name → content of each file of ``.eval_results/``; none without such a benchmark."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    evaluation = report.get("evaluation")
    if evaluation is None:
        return {}
    files = {}
    for task, entry in _measured(report, evaluation).items():
        dataset = evaluation.get("datasets", {}).get(task, _ELSEWHERE)
        benchmark = BENCHMARKS.get((dataset["dataset"] or "", dataset["config"] or ""))
        if dataset["dataset"] is None or benchmark is None:
            continue
        result = EvalResultEntry(
            dataset_id=dataset["dataset"],
            task_id=benchmark,
            value=round(100 * entry["score"], 2),  # leaderboards are in percent
            notes=f"lm-evaluation-harness, task {task}, {entry['metric']}, {entry['n']} questions "
            f"(part {PART})",
        )
        text = yaml.safe_dump(eval_result_entries_to_yaml([result]), sort_keys=False)
        files[f"{_file_name(task)}.yaml"] = text
    return files


def _measured(report: Report, evaluation: Evaluation) -> dict[str, TaskEntry]:
    candidate = measured(report)
    return {} if candidate is None else dict(reported(evaluation, candidate))


def _stderr(entry: TaskEntry) -> dict[str, float]:
    return {} if entry["stderr"] is None else {"stderr": entry["stderr"]}


def _file_name(task: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in task)
