"""``relex-merge evaluate``: what it shows, what it writes, and what it says of bad input."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import relex_merge
from relex_merge.report.evaluation_file import load_evaluation
from tests.support.lm_eval_tasks import write_task
from tests.support.models import Series, make_series, write_recipe
from tests.support.terminal import Command, Outcome

Evaluate = Callable[..., Outcome]


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """Twelve checkpoints, so that four lie before the cut of a short backtest."""
    return make_series(tmp_path_factory.mktemp("long"), steps=tuple(range(1, 13)))


@pytest.fixture
def recipe(long: Series, tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "recipe.yml", long.recipe(20))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "text.jsonl"
    lines = [{"prompt": f"a{i}", "response": "b c d e"} for i in range(4)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.fixture
def evaluate(
    relex: Command, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Evaluate:
    """The command on little text, in a folder of its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # finished measurements are kept beside where it is called

    def call(*arguments: object) -> Outcome:
        given = () if {"--prompts", "--text"} & set(map(str, arguments)) else ("--text", text)
        scale = () if (Path(str(arguments[0])) / "relex_report.json").exists() else ("--scale", 0.5)
        return relex("evaluate", *arguments, *given, *scale, "--quiet")

    return call


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    questions = [{"q": f"a{i}", "a": "x"} for i in range(24)]
    return write_task(tmp_path_factory.mktemp("tasks"), "letters", questions)


# What it writes


def test_the_evaluation_lies_beside_the_recipe_where_run_finds_it(
    evaluate: Evaluate, recipe: Path, relex: Command, tmp_path: Path
) -> None:
    done = evaluate(recipe)
    assert done.code == 0, done.err
    file = tmp_path / "recipe.evaluation.json"
    assert done.err == f"wrote {file}\n"
    assert load_evaluation(file)["last_step"] == 12
    run = relex("run", "--yes", recipe, tmp_path / "out", "--quiet")
    assert f"found an evaluation beside the recipe: {file}" in run.err


def test_json_writes_elsewhere_instead(evaluate: Evaluate, recipe: Path, tmp_path: Path) -> None:
    assert evaluate(recipe, "--json", tmp_path / "mine.json").code == 0
    assert load_evaluation(tmp_path / "mine.json")
    assert not (tmp_path / "recipe.evaluation.json").exists()


def test_where_the_folder_takes_no_file_nothing_is_lost(
    evaluate: Evaluate, long: Series, tmp_path: Path
) -> None:
    folder = tmp_path / "shut"
    folder.mkdir()
    recipe = write_recipe(folder / "recipe.yml", long.recipe(20))
    (folder / "recipe.evaluation.json").mkdir()  # a folder in its place stops root too
    done = evaluate(recipe)
    assert done.code == 0
    assert done.out.startswith("Verdict: ")
    assert f"WARNING: cannot write {folder / 'recipe.evaluation.json'}" in done.err
    assert load_evaluation(tmp_path / "here" / "recipe.evaluation.json")


def test_answers_to_tasks_are_not_lost_to_an_evaluation_without(
    evaluate: Evaluate, recipe: Path, tasks: Path, tmp_path: Path
) -> None:
    assert evaluate(recipe, "--tasks", "letters", "--include-path", tasks).code == 0
    file = tmp_path / "recipe.evaluation.json"
    labelled = file.read_bytes()
    done = evaluate(recipe)
    assert file.read_bytes() == labelled
    other = tmp_path / "recipe.text.evaluation.json"
    assert f"{file} has answers to tasks and is kept" in done.err
    assert load_evaluation(other)["tasks"] == {}
    evaluate(recipe, "--tasks", "letters", "--include-path", tasks, "--limit", 20)
    assert file.read_bytes() != labelled


def test_outputs_write_nothing_unless_asked(
    evaluate: Evaluate, long: Series, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    relex_merge.extrapolate(long.recipe(20), out, figure=False, quiet=True)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    done = evaluate(out)
    assert done.code == 0, done.err
    assert done.err == ""
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_chosen_recipe_has_its_evaluation_beside_it(
    evaluate: Evaluate, recipe: Path, tmp_path: Path
) -> None:
    chosen = tmp_path / "chosen.yml"
    done = evaluate(recipe, "--choose", "-o", chosen)
    assert done.code == 0, done.err
    assert load_evaluation(tmp_path / "chosen.evaluation.json") == load_evaluation(
        tmp_path / "recipe.evaluation.json"
    )
    assert done.err.endswith(f"wrote {chosen}, and beside it chosen.evaluation.json\n")


def test_a_figure_is_drawn_and_never_costs_the_evaluation(
    evaluate: Evaluate, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plot = tmp_path / "evaluation.png"
    assert evaluate(recipe, "--plot", plot).code == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    taken = tmp_path / "taken.png"
    taken.mkdir()
    refused = evaluate(recipe, "--plot", taken)
    assert (refused.code, refused.out) == (2, "")  # click knows that it is a folder
    monkeypatch.setitem(sys.modules, "matplotlib.lines", None)  # found when it is drawn
    done = evaluate(recipe, "--plot", tmp_path / "other.png")
    assert done.code == 0
    assert f"WARNING: cannot draw {tmp_path / 'other.png'}" in done.err
    assert "wrote " in done.err


def test_files_that_cannot_be_written_are_named_before_the_work(
    evaluate: Evaluate, recipe: Path, tmp_path: Path
) -> None:
    for option in (("--json",), ("--plot",), ("--choose", "-o")):
        file = tmp_path / "none" / "file.png"
        done = evaluate(recipe, *option, file)
        assert (done.code, done.out) == (1, "")
        assert done.err == (
            f"error: cannot write {file}: {file.parent} is no folder; make it first\n"
        )
    done = evaluate(recipe, "--plot", tmp_path / "figure.doc")
    assert (done.code, "a plot can be" in done.err) == (1, True)


# What it shows


def test_the_verdict_comes_first_and_all_fits_80_columns(
    evaluate: Evaluate, recipe: Path, tasks: Path
) -> None:
    done = evaluate(recipe, "--tasks", "letters", "--include-path", tasks, "--every", 6)
    assert done.out.startswith("Verdict: ")
    parts = ("Verdict: ", "Chosen: ", "letters: exact_match", "Text: 28 tokens", "KL from last")
    places = [done.out.index(part) for part in parts]
    assert places == sorted(places)
    assert max(map(len, done.out.splitlines())) <= 80
    assert "observed step 6" in done.out
    assert "Better than the last observed checkpoint" in done.out


def test_help_is_grouped_and_in_sentences(relex: Command) -> None:
    done = relex("evaluate", "--help")
    assert done.code == 0
    titles = [line for line in done.out.splitlines() if line.endswith(":") and line[:1] != " "]
    assert titles == [
        "Arguments:",
        "Options:",
        "Text:",
        "Tasks, through lm-eval:",
        "Models:",
        "Results:",
        "Machine:",
        "mergekit's own options:",
    ]
    assert "--lora-merge-cache" not in done.out  # accepted, but it means nothing here
    assert "--help" in done.out
    from relex_merge.cli.evaluate import SECTIONS, command

    for title in ("Text", "Tasks, through lm-eval", "Models", "Results"):
        for name in SECTIONS[title]:
            (param,) = (param for param in command.params if param.name == name)
            text = str(getattr(param, "help", ""))
            assert text.endswith((".", "]")), name
            assert text[0].isupper(), name


def test_quiet_is_quiet_and_leaves_no_trace(
    relex: Command, recipe: Path, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    from transformers.utils import logging as transformers_logging

    monkeypatch.chdir(tmp_path)
    before = (
        transformers_logging.is_progress_bar_enabled(),
        transformers_logging.get_verbosity(),
        datasets.are_progress_bars_disabled(),
        logging.getLogger("lm_eval").level,
    )
    asked = ("--tasks", "letters", "--include-path", tasks, "--max-new-tokens", 4)
    quiet = relex("evaluate", recipe, *asked, "--scale", 0.5, "--quiet", "--json", "a.json")
    assert (quiet.code, quiet.err) == (0, "wrote a.json\n")
    loud = relex(
        *("evaluate", recipe, *asked, "--scale", 0.5, "--json", "b.json", "--store", "other")
    )
    assert loud.out == quiet.out
    assert "answering questions" in loud.err
    for noise in ("Loading weights", "Building contexts", "Running", "Generating"):
        assert noise not in loud.err
    assert before == (
        transformers_logging.is_progress_bar_enabled(),
        transformers_logging.get_verbosity(),
        datasets.are_progress_bars_disabled(),
        logging.getLogger("lm_eval").level,
    )
    assert (tmp_path / "other").is_dir()


# What it would cost


def test_a_forecast_reads_no_weights(
    evaluate: Evaluate, long: Series, tasks: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yml", long.recipe(20))
    done = evaluate(
        recipe, "--dry-run", "--tasks", "letters", "--include-path", tasks, "--every", 6
    )
    assert done.code == 0, done.err
    rows = dict(line.split("  ", 1) for line in done.out.splitlines() if line[:1] != " ")
    assert rows["models"].split()[0] == f"{1 + 1 + 2 + 1 + 2 * 3}:"
    assert rows["models written"].split()[0] == "0"
    assert "28 of responses" in rows["text"]
    assert rows["forward passes"].split()[0] == "11"
    assert rows["questions"].strip() == "letters 24"
    assert set(rows) >= {"tokens", "to read", "peak memory", "scratch disk", "answers"}
    assert max(map(len, done.out.splitlines())) <= 80
    assert [p.name for p in tmp_path.iterdir() if "evaluation" in p.name] == []


def test_a_forecast_of_sampling_is_an_upper_bound(
    relex: Command, long: Series, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a\nb\nc\n")
    recipe = write_recipe(tmp_path / "recipe.yml", long.recipe(20))
    options = ("--prompts", prompts, "--samples", 2, "--max-new-tokens", 5)
    done = relex("evaluate", recipe, *options, "--dry-run", "--quiet")
    assert "at most 30 of responses" in done.out
    assert "at most 5 steps of sampling" in " ".join(done.out.split())
    real = relex_merge.evaluate(recipe, prompts=prompts, samples=2, max_new_tokens=5, quiet=True)
    assert 0 < real["function"]["tokens"] <= 30


def test_vllm_writes_its_candidates_and_the_forecast_says_so(
    evaluate: Evaluate, recipe: Path, tasks: Path
) -> None:
    done = evaluate(
        recipe, "--dry-run", "--tasks", "letters", "--include-path", tasks, "--model", "vllm"
    )
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "error: --model vllm needs vLLM, which is not installed: pip install "
        "'lm-eval[math,vllm]>=0.4.12'\n"
    )


# Bad input, one message each


def refused(done: Outcome, *parts: str) -> None:
    assert (done.code, done.out) == (1, ""), done.err
    (line,) = done.err.splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line, line


def test_bad_texts_are_named(evaluate: Evaluate, recipe: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("\n \n")
    refused(evaluate(recipe, "--prompts", file), f"{file} is empty; give it at least one prompt")
    file.write_text("a\n" + "b" * 200 + "\n")
    refused(evaluate(recipe, "--prompts", file), f"{file}:2: 200 tokens; the model takes 64")
    file.write_text("a\n" + "b" * 60 + "\n")
    done = evaluate(recipe, "--prompts", file)
    refused(done, f"{file}:2: 68 tokens with 8 to be sampled; the model takes 64: shorten it")
    file.write_text("a\n" + "b" * 50 + "\n")
    assert evaluate(recipe, "--prompts", file, "--dry-run").code == 0  # 14 tokens are room enough
    done = evaluate(recipe, "--prompts", file, "--max-new-tokens", 64)
    refused(done, f"{file}:1: 65 tokens with 64 to be sampled; the model takes 64")
    refused(evaluate(recipe, "--text", tmp_path / "none.jsonl"), "cannot read ", "none.jsonl")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"prompt": "a", "response": "b"}\n{"prompt": ""}\n')
    refused(evaluate(recipe, "--text", broken), f"{broken}:2: ")


def test_a_series_without_a_tokenizer_is_named(evaluate: Evaluate, tmp_path: Path) -> None:
    series = make_series(tmp_path / "series")
    for file in series.base.glob("tokenizer*"):
        file.unlink()
    recipe = write_recipe(tmp_path / "r.yml", series.recipe(20))
    refused(evaluate(recipe), f"{series.checkpoints[-1]} has no tokenizer; copy tokenizer.json")


def test_lm_eval_that_is_missing_has_its_pip_line(
    evaluate: Evaluate, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    done = evaluate(recipe, "--tasks", "gsm8k")
    refused(done, "which is not installed: pip install 'lm-eval[math]>=0.4.12'")


def test_backends_need_tasks_and_take_known_arguments(
    evaluate: Evaluate, recipe: Path, tasks: Path
) -> None:
    refused(evaluate(recipe, "--model", "vllm"), "--model and --model-args are for tasks")
    asked = ("--tasks", "letters", "--include-path", tasks)
    done = evaluate(recipe, *asked, "--model-args", "dtype=bfloat16")
    refused(done, "--model-args dtype says how a model is loaded")
    done = evaluate(recipe, *asked, "--gen-kwargs", "do_sample")
    refused(done, "--gen-kwargs 'do_sample' is not of the form key=value")
    done = evaluate(recipe, *asked, "--repeats", 4)
    refused(done, "task letters decodes greedily, so 4 repeats would be equal")


def test_sampled_answers_are_averaged(
    evaluate: Evaluate, recipe: Path, tasks: Path, tmp_path: Path
) -> None:
    asked = ("--tasks", "letters", "--include-path", tasks, "--num-fewshot", 0)
    sampled = ("--gen-kwargs", "do_sample=true,temperature=1.0", "--repeats", 2)
    chat = ("--apply-chat-template", "--no-fewshot-as-multiturn", "--system-instruction", "Be")
    done = evaluate(recipe, *asked, *sampled)
    assert done.code == 0, done.err
    assert "mean@2" in done.out
    found = load_evaluation(tmp_path / "recipe.evaluation.json")
    assert found["settings"]["gen_kwargs"] == {"do_sample": True, "temperature": 1.0}
    assert {e["repeats"] for e in found["tasks"]["letters"]} == {2}
    refused(evaluate(recipe, *asked, *chat), "task letters on ")  # there is no chat template


def test_too_few_checkpoints_before_the_cut_are_told_of(
    evaluate: Evaluate, series: Series, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "few.yml", series.recipe(20))
    done = evaluate(recipe)
    assert done.code == 0, done.err
    shown = " ".join(done.out.split())
    assert "No functional backtest at the ratio of step 20 (2.22×): 3 of the 5 checkpoints" in shown
    assert "4 are needed" in shown
    assert "KL from last observed" in shown
    near = write_recipe(tmp_path / "near.yml", series.recipe(9))
    shown = " ".join(evaluate(near).out.split())
    assert "No functional backtest: step 9 is not beyond the last observed step 9" in shown


def test_weights_that_give_nan_are_named(evaluate: Evaluate, tmp_path: Path) -> None:
    series = make_series(tmp_path / "series")
    other = tmp_path / "other"
    other.mkdir()
    for file in series.base.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    state = load_file(other / "model.safetensors")
    state["model.norm.weight"][0] = torch.nan
    save_file(state, other / "model.safetensors", {"format": "pt"})
    recipe = write_recipe(tmp_path / "r.yml", series.recipe(20))
    refused(evaluate(recipe, "--also", other), f"{other} gives NaN or infinite logits on ")
    (other / "model.safetensors").unlink()
    refused(evaluate(recipe, "--also", other), f"{other} holds no weights (")


def test_what_is_neither_recipe_nor_output_is_named(
    evaluate: Evaluate, recipe: Path, long: Series, tmp_path: Path
) -> None:
    refused(evaluate(long.base), f"{long.base} is no finished output of a relex recipe")
    refused(evaluate(recipe, recipe), "give one recipe, or one or several finished outputs")
    other = write_recipe(tmp_path / "linear.yml", {**long.recipe(20), "merge_method": "linear"})
    assert evaluate(other).code == 1
    assert evaluate(recipe, "--prompts", recipe, "--text", recipe).code == 2
    assert evaluate(recipe, "--choose").code == 2
