"""Models for lm-eval's backends: in memory for hf, written to the disk for vLLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mergekit.options import MergeOptions

import relex_merge
from relex_merge.evaluation.backends import BackendRequest, HfBackend, VllmBackend
from relex_merge.evaluation.from_recipe import compare_recipe
from relex_merge.evaluation.request import EvaluationRequest
from relex_merge.evaluation.tokens import load_tokenizer
from relex_merge.recipe.load import load_recipe
from relex_merge.report.candidates import BASE, LAST, Candidate
from tests.support.models import Series, read_weights

OWN, HALF = Candidate(20), Candidate(20, 0.5, "last")


def compared(series: Series, scratch: Path, kind: str, **args: Any) -> Any:
    request = EvaluationRequest(
        merge=MergeOptions(), scales=(0.5,), backend=BackendRequest(kind, args), quiet=True
    )
    return compare_recipe(load_recipe(series.recipe(20)), request, scratch)


def test_vllm_reads_what_run_would_write(series: Series, tmp_path: Path) -> None:
    subjects = compared(series, tmp_path / "scratch", "vllm", max_model_len=32).subjects
    made = relex_merge.extrapolate(series.recipe(20), tmp_path / "out", figure=False, quiet=True)
    subject = subjects.for_lm_eval(OWN)
    assert (subject.kind, subject.args) == ("vllm", {"max_model_len": 32})
    backend = subject.load()
    assert isinstance(backend, VllmBackend)
    folder = Path(backend.args["pretrained"])
    assert backend.args == {"max_model_len": 32, "pretrained": str(folder)}
    written = read_weights(folder)
    for name, expected in read_weights(made.out).items():
        torch.testing.assert_close(written[name], expected, rtol=1e-6, atol=1e-6)
    assert load_tokenizer(folder).vocab_size == load_tokenizer(series.base).vocab_size
    assert subject.load() is backend  # the same model is not loaded again for the next questions
    other = subjects.for_lm_eval(HALF).load()
    assert other.args["pretrained"] == str(folder)  # one model on the disk at a time
    assert not torch.equal(read_weights(folder)["model.norm.weight"], written["model.norm.weight"])


def test_vllm_reads_checkpoints_from_where_they_lie(series: Series, tmp_path: Path) -> None:
    subjects = compared(series, tmp_path, "vllm").subjects
    assert subjects.for_lm_eval(BASE).load().args["pretrained"] == str(series.base)
    assert subjects.for_lm_eval(LAST).load().args["pretrained"] == str(series.checkpoints[-1])
    assert not (tmp_path / "written").exists()


def test_bfloat16_stays_bfloat16_on_the_disk(tmp_path: Path) -> None:
    from tests.support.models import make_series

    series = make_series(tmp_path / "series", dtype=torch.bfloat16)
    subjects = compared(series, tmp_path / "scratch", "vllm").subjects
    folder = Path(subjects.for_lm_eval(OWN).load().args["pretrained"])
    assert {w.dtype for w in read_weights(folder).values()} == {torch.bfloat16}
    assert '"dtype": "bfloat16"' in (folder / "config.json").read_text()


def test_hf_gets_the_model_in_memory_and_its_arguments(series: Series, tmp_path: Path) -> None:
    subjects = compared(series, tmp_path, "hf", max_length=16).subjects
    backend = subjects.for_lm_eval(OWN).load()
    assert isinstance(backend, HfBackend)
    lm = backend.open(4)
    assert lm.model is subjects.load(OWN)
    assert lm.max_length == 16


def test_another_model_is_not_the_same_measurement(series: Series, tmp_path: Path) -> None:
    subjects = compared(series, tmp_path, "hf").subjects
    identities = {subjects.for_lm_eval(m).identity for m in (BASE, LAST, OWN, HALF)}
    assert len(identities) == 4
    again = compared(series, tmp_path / "again", "hf").subjects
    assert again.for_lm_eval(OWN).identity == subjects.for_lm_eval(OWN).identity


@pytest.mark.parametrize("name", [BASE, LAST, OWN, HALF])
def test_a_model_that_is_in_memory_is_not_put_there_again(
    name: Any, series: Series, tmp_path: Path
) -> None:
    subjects = compared(series, tmp_path, "hf").subjects
    model = subjects.load(name)
    with torch.no_grad():
        next(model.parameters()).zero_()  # would be undone by a second put
    assert not next(subjects.load(name).parameters()).any()
    subjects.load(BASE if name != BASE else LAST)
    assert next(subjects.load(name).parameters()).any()
