"""Promises of the model card and of the names under which local folders are published."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st

from relex_merge.report.contents import Report
from relex_merge.report.front_matter import License, base_license
from relex_merge.report.local_paths import local_names, scrub, scrub_yaml
from relex_merge.report.model_card import model_card
from relex_merge.report.snippet import default_revision, fill_placeholders, loading_snippet
from tests.fake_hub.card import front_matter
from tests.fake_hub.server import Hub

SHA = "0123456789abcdef0123456789abcdef01234567"
SERIES = "relex-rlvr/RLVR-Qwen2.5-Math-1.5B"


def figures(value: float | None) -> dict[str, float | None]:
    return dict.fromkeys(("min", "mean", "max", "model"), value)


def make_report(**changes: Any) -> Report:
    report: dict[str, Any] = {
        "method": {
            "name": "relex",
            "rank": 1,
            "degree": 1,
            "window": None,
            "mode": "extrapolate",
        },
        "base": {"reference": "Qwen/Qwen2.5-Math-1.5B", "sha": SHA},
        "checkpoints": [
            {"reference": f"{SERIES}@step_{step}", "step": step, "sha": f"{step:040x}"}
            for step in range(1, 76)
        ],
        "target_step": 500,
        "summary": {
            "explained_variance": figures(0.98213),
            "r2": figures(0.9951),
            "straightness": figures(0.89),
            "backtest_skill": figures(None),
        },
        "tensors": {},
        "verdict": {"verdict": "caution", "reasons": ["R² is 0.9951"]},
        "versions": {"relex-merge": "0.1.0", "mergekit": "0.1.5"},
    }
    return cast("Report", report | changes)


def local_report(*folders: str, base: str = "/home/jane/base") -> Report:
    return make_report(
        base={"reference": base, "sha": None},
        checkpoints=[
            {"reference": folder, "step": step, "sha": None}
            for step, folder in enumerate(folders, 1)
        ],
    )


def make_recipe(report: Report) -> str:
    recipe = {
        "merge_method": "relex",
        "base_model": report["base"]["reference"],
        "models": [{"model": item["reference"]} for item in report["checkpoints"]],
        "parameters": {"target_step": report["target_step"]},
    }
    return yaml.safe_dump(recipe, sort_keys=False)


def make_card(report: Report | None = None, **options: Any) -> str:
    report = make_report() if report is None else report
    options.setdefault("name", "RLVR-step-500")
    return model_card(report, make_recipe(report), **options)


def metadata(card: str) -> dict[str, Any]:
    return front_matter(card)


def test_front_matter_names_base_relation_library_task_and_tags() -> None:
    assert metadata(make_card(license=License(("apache-2.0",)))) == {
        "base_model": "Qwen/Qwen2.5-Math-1.5B",
        "base_model_relation": "merge",
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["mergekit", "merge", "relex", "rlvr"],
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"license": License(("apache-2.0",)), "pipeline_tag": None},
        {"license": License(("mit", "apache-2.0"))},
        {"license": License(("other",), "qwen-research", "LICENSE")},
        {"report": local_report("/data/run/step_1", "/data/run/step_2")},
        {"report": make_report(base={"reference": "gpt2@main", "sha": SHA})},
    ],
)
def test_the_hubs_validator_accepts_the_card_without_a_warning(
    hub: Hub, options: dict[str, Any], recwarn: pytest.WarningsRecorder
) -> None:
    from huggingface_hub import HfApi

    card = make_card(**options)
    ModelCard(card).validate()
    HfApi(token=False)._validate_yaml(card)
    assert not recwarn.list
    assert len(hub.requests("POST /api/validate-yaml")) == 2


def test_the_validator_of_the_test_hub_refuses_what_the_hub_refuses(hub: Hub) -> None:
    with pytest.raises(ValueError, match="license"):
        ModelCard(make_card(license=License(("jane-license",)))).validate()


def test_a_local_base_is_not_claimed_to_be_on_the_hub() -> None:
    license = License(("other",), "mine", "LICENSE")
    data = metadata(make_card(local_report("/data/run/step_1"), license=license))
    assert not data.keys() & {"base_model", "base_model_relation", "license_link"}
    assert (data["license"], data["license_name"]) == ("other", "mine")


def test_license_link_to_a_file_points_into_the_base_repo() -> None:
    data = metadata(make_card(license=License(("other",), "qwen-research", "LICENSE")))
    assert data["license_name"] == "qwen-research"
    assert data["license_link"] == (
        "https://huggingface.co/Qwen/Qwen2.5-Math-1.5B/blob/main/LICENSE"
    )


@pytest.mark.parametrize(
    ("readme", "license"),
    [
        ("---\nlicense: apache-2.0\n---\n# Base", License(("apache-2.0",))),
        ("\ufeff---\r\nlicense: llama3.1\r\n---\r\ntext", License(("llama3.1",))),
        ("---\nlicense: [mit, apache-2.0]\n---\n", License(("mit", "apache-2.0"))),
        (
            "---\nlicense: other\nlicense_name: q\nlicense_link: https://x.org/L\n---\n",
            License(("other",), "q", "https://x.org/L"),
        ),
        ("---\nlicense: other\nlicense_name: 3\n---\n", License(("other",))),
        ("---\nlicense: [oops\n---\n", None),
        ("---\nlicense: mit\ndate: 2024-13-45\n---\n", None),
        ("---\n- a list\n---\n", None),
        ("---\nlicense: {a: 1}\n---\n", None),
        ("---\nlicense: My own terms!\n---\n", None),
        ("---\ntags: [x]\n---\n", None),
        ("# no front matter", None),
        ("", None),
    ],
)
def test_license_is_read_from_the_bases_readme(
    tmp_path: Path, readme: str, license: License | None
) -> None:
    (tmp_path / "README.md").write_bytes(readme.encode())
    assert base_license(tmp_path / "README.md") == license
    assert base_license(readme.lstrip("\ufeff")) == license


def test_no_readme_is_no_license(tmp_path: Path) -> None:
    assert base_license(None) is None
    assert base_license(tmp_path / "README.md") is None


def test_share_of_the_run_and_rollouts_saved_are_stated() -> None:
    assert "75 of 500 steps (15 %): 6.7× fewer rollouts" in make_card()


def test_a_target_inside_the_window_saves_nothing() -> None:
    card = make_card(make_report(target_step=60))
    assert "no rollouts are saved" in card
    assert "fewer rollouts" not in card


def test_reconstruction_is_called_one() -> None:
    method = {"name": "relex", "rank": 2, "degree": 1, "window": None, "mode": "reconstruct"}
    card = make_card(make_report(method=method, target_step=50))
    assert "Reconstruction of observed step 50, rank 2" in card
    assert "xtrapolation to" not in card
    assert "fewer rollouts" not in card
    assert "polynomial" not in card


def test_a_predictor_of_another_version_is_named() -> None:
    method = {"name": "relex", "rank": 1, "degree": 1, "window": None, "mode": "extrapolate"}
    card = make_card(make_report(method=method | {"predictor": "blend", "scope": "model"}))
    assert "continued to step 500 by the predictor `blend`" in card


def test_card_holds_what_a_reader_needs() -> None:
    method = {"name": "relex", "rank": 1, "degree": 2, "window": 10, "mode": "extrapolate"}
    report = make_report(method=method)
    card = make_card(report)
    for expected in (
        "\n# Qwen2.5-Math-1.5B: RLVR step 500\n",
        "Extrapolation to step 500, rank 1",
        "75 observed checkpoints, steps 1 to 75",
        f"https://huggingface.co/{SERIES}/tree/{75:040x}",
        "arXiv 2605.21468",
        "You Only Need Minimal RLVR Training",
        "https://github.com/arcee-ai/mergekit",
        "the last 10 checkpoints with a polynomial of degree 2",
        "| Explained variance | 0.9821 | 0.9821 | 0.9821 | 0.9821 |",
        "| Backtest skill | – | – | – | – |",
        "Verdict: **caution**",
        "- R² is 0.9951",
        f"```yaml\n{make_recipe(report).rstrip()}\n```",
        "relex-merge 0.1.0, mergekit 0.1.5",
        loading_snippet("your-name/your-model", "relex-step-500"),
    ):
        assert expected in card, expected


def test_whole_steps_are_written_without_a_fraction() -> None:
    assert default_revision(make_report(target_step=1000.0)) == "relex-step-1000"
    assert default_revision(make_report(target_step=750.5)) == "relex-step-750.5"


def test_the_placeholders_give_way_to_the_repo_that_is_pushed_to() -> None:
    report = make_report()
    card = fill_placeholders(make_card(report), report, "me/model", "relex-step-500")
    assert "your-name/your-model" not in card
    assert "\n# model: RLVR step 500\n" in card
    assert 'AutoTokenizer.from_pretrained("me/model", revision="relex-step-500")' in card
    compile(loading_snippet('odd"\\', "r'\n"), "snippet", "exec")
    mine = make_card(report).replace("# Qwen2.5-Math-1.5B: RLVR step 500", "# My model")
    assert "\n# My model\n" in fill_placeholders(mine, report, "me/model", None)


def test_what_lies_on_the_hub_is_linked_and_its_recipe_runs() -> None:
    card = make_card()
    assert "[`Qwen/Qwen2.5-Math-1.5B`](https://huggingface.co/Qwen/Qwen2.5-Math-1.5B)" in card
    assert "Every checkpoint, with the commit that was read<" in card
    assert "it reads everything from the Hub." in card
    assert "does not run as it is" not in card


def test_of_local_checkpoints_no_commit_is_promised_and_the_recipe_says_what_it_lacks() -> None:
    card = make_card(local_report("/data/run/step_1", "/data/run/step_2"))
    assert "\n# base: RLVR step 500\n" in card
    assert "Every checkpoint<" in card
    assert "does not run as it is: the base and 2 of the checkpoints lay in local folders" in card
    report = make_report()
    report["checkpoints"][3]["sha"] = None
    card = make_card(report)
    assert "with the commit that was read where it came from the Hub<" in card
    assert "does not run as it is: 1 of the checkpoints lay in local folders" in card


def test_anchor_and_scale_are_described() -> None:
    method = {**make_report()["method"], "anchor": "last", "scale": 0.3}
    said = "the last observed checkpoint plus 0.3 × the displacement"
    assert said in make_card(make_report(method=method))
    assert "displacement" not in make_card()


def test_nothing_from_outside_breaks_out_of_the_markdown() -> None:
    report = local_report("/data/run/step|1", "/data/run/step```2", base="/home/jane/a # *b* <i>")
    report["verdict"] = {
        "verdict": "caution",
        "reasons": ["# no heading\n---\n<script>x</script> [a](javascript:b) | ```", "1. item *b*"],
    }
    report["versions"] = {"torch": "2.13.0+cu<b>"}
    card = make_card(report, pipeline_tag=None)
    body = card.split("\n---\n", 1)[1]
    before, block = body.split("\n````yaml\n")
    block, after = block.split("\n````\n")
    prose = before + after
    assert "\n# a \\# \\*b\\* \\<i\\>: RLVR step 500\n" in prose
    assert "\n---" not in body
    assert "<script>" not in prose
    assert "cu<b>" not in prose
    assert "- \\# no heading --- \\<script\\>" in prose
    assert "- 1\\. item \\*b\\*" in prose
    assert "| 1 | `step\\|1` |" in prose
    assert "| 2 | ````step```2```` |" in prose
    assert yaml.safe_load(block)["models"] == [{"model": "step|1"}, {"model": "step```2"}]


def test_no_local_path_reaches_a_card() -> None:
    report = local_report("/home/jane/run/step_1", "C:\\Users\\jane\\run\\step_2", "~/run/step_3")
    report["verdict"]["reasons"] = ["/home/jane/run/step_1/model.safetensors stands still"]
    card = make_card(report, name="/home/jane/out")
    for secret in ("jane", "/home", "C:", "~/"):
        assert secret not in card
    assert "`step_1`" in card
    assert "model: step_2" in card
    assert "step\\_1/model.safetensors stands still" in card


def test_folders_of_the_same_name_stay_distinguishable() -> None:
    folders = [f"/data/{run}/checkpoint-50/actor" for run in ("run_a", "run_b")]
    card = make_card(local_report(*folders))
    assert "`run_a/checkpoint-50/actor`" in card
    assert "`run_b/checkpoint-50/actor`" in card
    assert "model: run_a/checkpoint-50/actor" in card


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("/home/jane/run", "run"),
        ("/home/jane doe/my run/", "my run"),
        ("/scratch", "scratch"),
        ("C:\\Users\\jane\\run", "run"),
        ("D:/runs/a b", "a b"),
        ("\\\\server\\share\\run", "run"),
        ("~/run", "run"),
        ("~jane/run", "run"),
        ("~", "~"),
        ("/", "/"),
        ("file:///home/jane/run", "run"),
        ("/data/model+/data/lora", "model+lora"),
        ("org/model+/data/lora", "org/model+lora"),
        ("see /home/jane/run: it is bad.", "see run: it is bad."),
        ("(/home/jane/run, '/opt/x/y')", "(run, 'y')"),
        ("path=C:\\Users\\jane.", "path=local."),
        ("org/model@step_1", "org/model@step_1"),
        ("https://arxiv.org/abs/2605.21468", "https://arxiv.org/abs/2605.21468"),
        ("see ./run/step_1 and ../x/y", "see step_1 and y"),
        ("and/or, ~15/100, 1/√T, </b>, a /b", "and/or, ~15/100, 1/√T, </b>, a /b"),
        ("token hf_abcdefghijklmnopqrstuvwxyz", "token hf_***"),
        (12, 12),
        (None, None),
    ],
)
def test_paths_of_every_system_are_scrubbed_and_nothing_else(text: Any, clean: Any) -> None:
    assert scrub({"key": [text]}, local_names({"key": [text]})) == {"key": [clean]}


def test_home_and_absolute_spelling_of_a_folder_get_one_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/jane")
    assert local_names(["~/run/x", "/home/jane/run/x"]) == {"~/run/x": "x", "/home/jane/run/x": "x"}


def test_a_path_is_not_cut_by_one_that_is_its_prefix() -> None:
    names = local_names({"a": "/d/step_1", "b": "/d/step_10", "c": "/d/step_1.5"})
    text = "/d/step_10, /d/step_1.5 and /d/step_1."
    assert scrub(text, names) == "step_10, step_1.5 and step_1."
    assert scrub("/d/step_1/x is gone", local_names({"a": "/d/step_1", "b": "/d/step_1/x"})) == (
        "x is gone"
    )


def test_scrubbed_yaml_keeps_its_types_and_untouched_yaml_its_comments() -> None:
    text = "# mine\nmodels: [{model: org/x}]\n"
    assert scrub_yaml(text, {}) == text
    text = "model: /data/100  # in /home/jane/x\n"
    clean = scrub_yaml(text, local_names(yaml.safe_load(text)))
    assert yaml.safe_load(clean) == {"model": "100"}
    assert "jane" not in clean
    assert scrub_yaml("model: org/x  # in /home/jane/x\n", {}) == "model: org/x\n"


PARTS = st.text("abc_-.1 ", min_size=1, max_size=4).filter(
    lambda part: part.strip() == part and part.strip(".") != ""
)
PATHS = st.lists(PARTS, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(st.lists(PATHS, min_size=1, max_size=6, unique=True))
def test_names_are_distinct_endings_of_their_paths(paths: list[str]) -> None:
    clean = scrub({"references": paths}, local_names({"references": paths}))["references"]
    assert len(set(clean)) == len(paths)
    for path, name in zip(paths, clean, strict=True):
        assert path.endswith("/" + name)
