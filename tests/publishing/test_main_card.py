"""What ``main`` of a repo shows after pushes: a card where it was empty, else what it had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from relex_merge.publishing.main_card import MARK
from relex_merge.publishing.push import push
from tests.fake_hub import Fault, Hub
from tests.support.outputs import REPO, REVISION, make_output, seed_series

NEW = "tester/new"


@pytest.fixture
def out(tmp_path: Path, hub_login: object) -> Path:
    return make_output(tmp_path / "out")


def card(hub: Hub, repo: str = NEW) -> str:
    return hub.files(repo)["README.md"].decode()


def test_an_empty_main_gets_a_card_and_no_weights(hub: Hub, out: Path) -> None:
    push(out, NEW, quiet=True)
    assert hub.files(NEW).keys() == {"README.md"}
    text = card(hub)
    assert "# new: extrapolations of an RLVR run" in text
    assert f"| 1000 | [`{REVISION}`](https://huggingface.co/{NEW}/tree/{REVISION}) |" in text
    assert text.count(f'from_pretrained("{NEW}", revision="{REVISION}")') == 2
    assert "/home/jane" not in text
    data: Any = ModelCard(text).data
    assert {"relex", "mergekit"} <= set(data.tags)
    assert data.base_model is None  # a local folder


def test_the_table_grows_with_every_push_and_names_of_ones_own_stay(hub: Hub, out: Path) -> None:
    push(out, NEW, quiet=True)
    push(out, NEW, revision="mine", quiet=True)
    push(out, NEW, revision="relex-step-2000", quiet=True)
    rows = [line for line in card(hub).splitlines() if line.startswith("| ") and "tree" in line]
    assert [row.split("`")[1] for row in rows] == [REVISION, "relex-step-2000", "mine"]
    assert len(hub.history(NEW)) == 4  # the first commit of a repo, and one for each new row


def test_a_repeated_push_commits_nothing_on_main(hub: Hub, out: Path) -> None:
    push(out, NEW, quiet=True)
    before = hub.heads(NEW)["main"]
    push(out, NEW, force=True, quiet=True)
    assert hub.heads(NEW)["main"] == before


def test_an_existing_main_stays_unless_it_is_asked_for(hub: Hub, out: Path) -> None:
    files = seed_series(hub)
    push(out, REPO, quiet=True)
    assert hub.files(REPO) == files
    push(out, REPO, force=True, card=True, quiet=True)
    after = hub.files(REPO)
    assert MARK in after["README.md"].decode()
    assert {n: c for n, c in after.items() if n != "README.md"} == {
        n: c for n, c in files.items() if n != "README.md"
    }


def test_a_card_that_was_taken_over_is_left_alone(hub: Hub, out: Path) -> None:
    push(out, NEW, quiet=True)
    hub.commit(NEW, {"README.md": card(hub).replace(MARK, "") + "\nmy own words\n"})
    push(out, NEW, revision="relex-step-2000", quiet=True)
    assert "my own words" in card(hub)
    assert "relex-step-2000" not in card(hub)


def test_a_card_that_fails_does_not_cost_the_push(hub: Hub, out: Path) -> None:
    hub.faults.add(Fault("POST .*/commit/main", status=403))
    result = push(out, NEW, quiet=True)
    assert_holds_in(hub, out)
    assert len(result.notes) == 1
    assert "the model is published" in result.notes[0]
    assert hub.files(NEW) == {}


def assert_holds_in(hub: Hub, out: Path) -> None:
    assert hub.files(NEW, REVISION).keys() >= {"config.json", "README.md"}
