"""What a run with an evaluation leaves beside the weights, and sends to the Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

import relex_merge
from relex_merge.publishing.push import push
from relex_merge.report.candidates import LAST
from relex_merge.report.evaluation import Evaluation
from relex_merge.report.evaluation_file import write_evaluation
from relex_merge.report.hub_results import PART
from tests.fake_hub import Hub
from tests.fake_hub.access import Token
from tests.support.evaluations import LINE, fingerprint, make_evaluation, scores, sums
from tests.support.models import Series, make_series, read_weights

GSM8K = {"dataset": "openai/gsm8k", "config": "main", "split": "test"}
LOCAL = {"dataset": None, "config": None, "split": None}


@pytest.fixture(scope="module")
def forth(tmp_path_factory: pytest.TempPathFactory) -> Series:
    return make_series(tmp_path_factory.mktemp("walk"), steps=tuple(range(1, 11)))


@pytest.fixture
def evaluation(forth: Series) -> Evaluation:
    """Two tasks, one of which is a benchmark that the Hub registers."""
    tasks = {
        **sums(),
        "gsm8k": [scores(LAST, 0.5), scores(LINE, 0.8125, (0.2, 0.4))],
    }
    found = make_evaluation(series=fingerprint(forth.recipe(20)), last_step=10.0, tasks=tasks)
    found["datasets"] = cast("Any", {"sums": LOCAL, "gsm8k": GSM8K})
    found["sentences"] = ["/home/jane/end: Better than the last observed checkpoint: yes."]
    return found


@pytest.fixture
def file(evaluation: Evaluation, tmp_path: Path) -> Path:
    write_evaluation(tmp_path / "measured.json", evaluation)
    return tmp_path / "measured.json"


def run(series: Series, out: Path, file: Path, target: float = 20, **options: Any) -> Path:
    options = {"figure": False, "quiet": True, **options}
    return relex_merge.extrapolate(series.recipe(target), out, evaluation=file, **options).out


def test_the_card_shows_the_evaluation(forth: Series, file: Path, tmp_path: Path) -> None:
    card = (run(forth, tmp_path / "out", file) / "README.md").read_text(encoding="utf-8")
    assert "Verdict: **extrapolate** (evidence: labels)" in card
    assert "- **Function**: extrapolate" in card
    section = card[card.index("## Evaluation") : card.index("## Recipe")]
    assert "This model is **step 20** in the tables." in section
    assert "| Backtest | Skill |" in section
    assert "KL from last (nats a token)" in section
    assert "| gsm8k |" in section
    assert "on 640 response tokens of 64 prompts" in section
    assert "/home/jane" not in card
    assert "end: Better than the last observed checkpoint: yes." in section


def test_the_metadata_has_the_reported_part_of_the_model_that_was_written(
    forth: Series, file: Path, tmp_path: Path
) -> None:
    out = run(forth, tmp_path / "out", file)
    data = ModelCard.load(out / "README.md").data
    assert data.model_name == "out"
    found = {result.dataset_name: result for result in data.eval_results}
    assert {name: result.metric_value for name, result in found.items()} == {
        "sums": 0.9,
        "gsm8k": 0.8125,
    }
    gsm8k = found["gsm8k"]
    assert (gsm8k.dataset_type, gsm8k.dataset_config, gsm8k.dataset_split) == (
        "openai/gsm8k",
        "main",
        "test",
    )
    assert gsm8k.dataset_args == {"part": PART, "questions": 100}
    assert (gsm8k.metric_type, gsm8k.metric_name) == ("exact_match", "exact_match, none")
    assert found["sums"].dataset_type == "sums"


def test_only_registered_benchmarks_have_a_file_of_results(
    forth: Series, file: Path, tmp_path: Path
) -> None:
    out = run(forth, tmp_path / "out", file)
    assert [path.name for path in (out / ".eval_results").iterdir()] == ["gsm8k.yaml"]
    content = yaml.safe_load((out / ".eval_results/gsm8k.yaml").read_text())
    (entry,) = parse_eval_result_entries(content)
    assert (entry.dataset_id, entry.task_id, entry.value) == ("openai/gsm8k", "gsm8k", 81.25)
    assert entry.notes is not None
    assert "100 questions" in entry.notes
    assert "no part in choosing" in entry.notes


def test_a_model_that_was_not_measured_has_no_results(
    forth: Series, file: Path, tmp_path: Path
) -> None:
    out = run(forth, tmp_path / "out", file, target=30)
    assert not (out / ".eval_results").exists()
    card = ModelCard.load(out / "README.md")
    assert card.data.eval_results is None
    assert "This model was not measured itself" in card.text
    assert "The evaluation has nothing about step 30" in card.text


def test_a_push_sends_results_and_figures(
    forth: Series, file: Path, tmp_path: Path, hub: Hub, hub_login: Token
) -> None:
    out = run(forth, tmp_path / "out", file)
    (out / "relex_evaluation.png").write_bytes(b"\x89PNG")
    (out / ".hidden").write_text("mine")
    (out / ".eval_results/notes.txt").write_text("mine")
    measured = {"others": [{"model": "/home/jane/end"}]}
    (out / "mergekit_config.evaluation.json").write_text(json.dumps(measured))
    push(out, "tester/evaluated")
    sent = hub.files("tester/evaluated", "relex-step-20")
    assert sent[".eval_results/gsm8k.yaml"] == (out / ".eval_results/gsm8k.yaml").read_bytes()
    assert "relex_evaluation.png" in sent
    assert not {".hidden", ".eval_results/notes.txt"} & sent.keys()
    assert all(b"/home/jane" not in content for content in sent.values())
    assert json.loads(sent["mergekit_config.evaluation.json"])["others"] == [{"model": "end"}]


def test_the_curves_are_drawn_and_their_failure_costs_nothing(
    forth: Series, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from relex_merge.pipeline import finish

    monkeypatch.setattr(finish, "save_plot", lambda *_: None)  # takes longer, and is tested before
    out = run(forth, tmp_path / "out", file, figure=True)
    assert (out / "relex_evaluation.png").stat().st_size > 1000
    assert "](relex_evaluation.png)" in (out / "README.md").read_text()

    def fail(*_: Any) -> None:
        raise ArithmeticError("no curve")

    monkeypatch.setattr(finish, "save_evaluation_plot", fail)
    monkeypatch.setattr(finish, "benchmark_files", fail)
    said: list[str] = []
    out = run(forth, tmp_path / "again", file, figure=True, notify=said.append)
    assert [warning.partition(" is missing")[0] for warning in said] == [
        "warning: the figure of the evaluation (relex_evaluation.png)",
        "warning: the results of benchmarks (.eval_results)",
    ]
    assert read_weights(out)
    assert "relex_evaluation.png" not in (out / "README.md").read_text()


def test_an_evaluation_as_evaluate_makes_it(forth: Series, tmp_path: Path) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text(
        "".join(json.dumps({"prompt": f"a{i}", "response": "b c d e"}) + "\n" for i in range(6))
    )
    file = tmp_path / "measured.json"
    found = relex_merge.evaluate(forth.recipe(20), text=text, scales=[0.5], quiet=True, json=file)
    out = run(forth, tmp_path / "out", file)
    made = json.loads((out / "relex_report.json").read_text())
    assert made["evaluation"] == found
    assert {key: made["verdict"][key] for key in found["verdict"]} == found["verdict"]
