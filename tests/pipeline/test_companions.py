"""Tokenizer, chat template and generation config: from the last checkpoint, else from the base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

import relex_merge
from relex_merge.pipeline.run import Result
from tests.support.models import TEMPLATE, Series, make_series, write_recipe, write_tokenizer
from tests.support.terminal import Command

FLOAT32 = 1e-6  # of the largest number of a tensor
pytestmark = pytest.mark.usefixtures("no_figure")


def run(series: Series, out: Path, target: float = 20, **parameters: Any) -> Result:
    return relex_merge.extrapolate(series.recipe(target, **parameters), out, quiet=True)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _tokenizers(root: Path, **last: Any) -> Series:
    """A base with tokenizer, template and generation config; the last checkpoint as told."""
    series = make_series(root, steps=(1, 2, 3))
    write_tokenizer(series.base, "base template")
    (series.base / "generation_config.json").write_text(json.dumps({"temperature": 0.1}))
    for folder in series.checkpoints[:-1]:
        write_tokenizer(folder, "of an earlier one")
    if "template" in last:
        write_tokenizer(series.checkpoints[-1], last["template"])
    if "generation" in last:
        path = series.checkpoints[-1] / "generation_config.json"
        path.write_text(json.dumps(last["generation"]))
    return series


def test_companions_come_from_the_last_checkpoint_where_it_has_them(tmp_path: Path) -> None:
    series = _tokenizers(tmp_path, template=TEMPLATE, generation={"temperature": 0.6})
    out = run(series, tmp_path / "out").out
    assert AutoTokenizer.from_pretrained(out).chat_template == TEMPLATE
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.generation_config.temperature == 0.6


def test_companions_come_from_the_base_where_the_last_checkpoint_has_none(tmp_path: Path) -> None:
    series = _tokenizers(tmp_path)
    out = run(series, tmp_path / "out").out
    assert AutoTokenizer.from_pretrained(out).chat_template == "base template"
    assert AutoModelForCausalLM.from_pretrained(out).generation_config.temperature == 0.1


def test_each_kind_of_companion_is_chosen_by_itself(tmp_path: Path) -> None:
    # The last checkpoint has a tokenizer without a template: the template is the base's.
    series = _tokenizers(tmp_path / "a", template=None, generation={"temperature": 0.6})
    out = run(series, tmp_path / "out").out
    assert AutoTokenizer.from_pretrained(out).chat_template == "base template"
    assert AutoModelForCausalLM.from_pretrained(out).generation_config.temperature == 0.6
    # It has a template alone: the tokenizer is the base's.
    series = _tokenizers(tmp_path / "b")
    (series.checkpoints[-1] / "chat_template.jinja").write_text(TEMPLATE)
    out = run(series, tmp_path / "out2").out
    assert AutoTokenizer.from_pretrained(out).chat_template == TEMPLATE


@pytest.mark.parametrize("where", ["last", "base"])
def test_a_template_inside_tokenizer_config_json_is_found(where: str, tmp_path: Path) -> None:
    series = _tokenizers(tmp_path, template=None)
    (series.base / "chat_template.jinja").unlink()
    folder = series.base if where == "base" else series.checkpoints[-1]
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": TEMPLATE}))
    out = run(series, tmp_path / "out").out
    assert AutoTokenizer.from_pretrained(out).chat_template == TEMPLATE


def test_no_copy_tokenizer_and_no_write_model_card_leave_them_out(
    relex: Command, series: Series, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "r.yml", series.recipe())
    options = ("--no-copy-tokenizer", "--no-write-model-card")
    assert relex("run", "--yes", recipe, tmp_path / "out", *options).code == 0
    assert not names(tmp_path / "out") & {"README.md", "tokenizer.json", "tokenizer_config.json"}
