"""A Hub that fails on the way: repeated where that helps, one message where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

import relex_merge
from relex_merge.errors import RelexError
from tests.fake_hub import Fault, Hub
from tests.fake_hub.access import Token
from tests.fake_hub.building import WRITE_TOKEN
from tests.support.hub_series import BASE, RUN, STREAMS, recipe, run
from tests.support.models import STEPS, Series, expected, read_weights, worst_error, write_recipe
from tests.support.terminal import Command, shell

FLOAT32 = 1e-6
pytestmark = pytest.mark.usefixtures("no_figure")
WRITES = r"^(PUT|DELETE|PATCH) /|^POST (?!.*/preupload/)"  # that one asks for permission alone


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@STREAMS
def test_a_download_that_is_cut_busy_or_failing_goes_on(
    stream: bool,
    hub: Hub,
    pins: dict[str, str],
    local: Series,
    tmp_path: Path,
    no_waiting: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub.faults.add(Fault("GET /cdn/.*safetensors", times=2, cut_after=500))
    hub.faults.add(Fault("GET /cdn/.*safetensors", times=2, after=4, status=503))
    hub.faults.add(
        Fault("GET /cdn/.*safetensors", times=1, after=7, status=429, headers={"Retry-After": "2"})
    )
    hub.faults.add(Fault("GET /api/models/.*/revision/step_4", times=1, status=500))
    result = run(tmp_path / "out", stream)
    assert worst_error(read_weights(result.out), expected(local)) < FLOAT32


@STREAMS
def test_a_hub_that_keeps_failing_ends_in_one_message(
    stream: bool,
    hub: Hub,
    pins: dict[str, str],
    tmp_path: Path,
    no_waiting: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("relex_merge.hub.errors.WAITS", (1.0,))
    hub.faults.add(Fault(f"GET /cdn/{RUN}/.*safetensors", times=None, status=503))
    with pytest.raises(RelexError) as caught:
        run(tmp_path / "out", stream)
    assert RUN in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_push_that_fails_keeps_the_output_and_can_be_repeated(
    relex: Command,
    hub: Hub,
    hub_login: Token,
    pins: dict[str, str],
    tmp_path: Path,
    no_waiting: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write_recipe(tmp_path / "r.yml", recipe())
    hub.faults.add(Fault("POST .*/commit/", times=None, status=400, message="no"))
    before = hub.heads(RUN)
    done = relex("run", "--yes", path, tmp_path / "out", "--push-to", RUN)
    assert done.code == 1
    assert "Traceback" not in done.err
    assert (tmp_path / "out/model.safetensors").is_file()
    assert hub.heads(RUN) == before
    hub.faults.clear()
    done = relex("push", tmp_path / "out", RUN)
    assert done.code == 0, done.err
    assert hub.files(RUN, "relex-step-20").keys() == names(tmp_path / "out")


def test_nothing_is_pushed_before_the_output_is_finished(
    relex: Command, hub: Hub, hub_login: Token, pins: dict[str, str], tmp_path: Path
) -> None:
    made = recipe(parameters={"target_step": 20, "rank": 9})
    done = relex(
        "run", "--yes", write_recipe(tmp_path / "r.yml", made), tmp_path / "out", "--push-to", RUN
    )
    assert done.code == 1
    assert not hub.requests(WRITES)
    assert not (tmp_path / "out").exists()


def test_recipes_for_mergekits_own_path_read_the_hub_at_the_same_commits(
    hub: Hub, pins: dict[str, str], local: Series, tmp_path: Path
) -> None:
    layers = [{"model": f"{RUN}@step_{s}", "layer_range": [0, 2]} for s in STEPS]
    layers.append({"model": BASE, "layer_range": [0, 2]})
    made = recipe(slices=[{"sources": layers}])
    del made["models"]
    result = relex_merge.extrapolate(made, tmp_path / "out", quiet=True)
    assert worst_error(read_weights(result.out), expected(local)) < FLOAT32
    assert [c["sha"] for c in result.report["checkpoints"]] == list(pins.values())[1:]
    assert result.report["base"]["sha"] == pins[BASE]


def test_run_and_push_in_a_process_of_its_own_never_show_the_token(
    hub: Hub, hub_login: Token, pins: dict[str, str], tmp_path: Path
) -> None:
    """As a process of its own; the token comes from the environment and never shows."""
    path = write_recipe(tmp_path / "r.yml", recipe())
    done = shell("run", "--yes", path, tmp_path / "out", "--push-to", RUN, "-v")
    assert done.returncode == 0, done.stderr
    assert WRITE_TOKEN not in done.stdout + done.stderr
    assert hub.files(RUN, "relex-step-20").keys() == names(tmp_path / "out")
