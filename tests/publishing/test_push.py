"""Promises of a push, checked with the real client against the Hub on loopback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from relex_merge.errors import RelexError
from relex_merge.publishing.push import push
from tests.fake_hub.server import Hub
from tests.support.outputs import (
    REPO,
    REVISION,
    REWRITTEN,
    SECRETS,
    assert_holds,
    contents,
    make_output,
    seed_series,
)

WRITES = r"^(POST|PUT|DELETE|PATCH) "


@pytest.fixture
def run_files(hub: Hub, hub_login: object) -> dict[str, bytes]:
    """Files of ``main`` of a repo that holds a training run."""
    return seed_series(hub)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return make_output(tmp_path / "out")


def test_one_commit_holds_exactly_the_output_and_nothing_else_moves(
    hub: Hub, run_files: dict[str, bytes], out: Path
) -> None:
    before = hub.heads(REPO)
    result = push(out, REPO, quiet=True)
    assert_holds(hub, REVISION, out)
    assert hub.heads(REPO) == {**before, REVISION: result.commit}
    assert hub.files(REPO) == run_files
    assert [commit.sha for commit in hub.history(REPO, REVISION)][1] == before["main"]
    assert len(hub.requests("POST .*/commit/")) == 1
    assert (result.repo, result.revision) == (REPO, REVISION)
    assert result.url == f"{hub.url}/{REPO}/tree/{REVISION}"
    assert result.snippet.count(f'from_pretrained("{REPO}", revision="{REVISION}")') == 2


def test_the_branch_appears_only_after_every_upload(
    hub: Hub, run_files: dict[str, bytes], out: Path
) -> None:
    push(out, REPO, quiet=True)
    writes = [entry.route for entry in hub.requests(WRITES)]
    last_upload = len(writes) - 1 - writes[::-1].index("lfs_put")
    assert last_upload < writes.index("create_branch") < writes.index("commit")


def test_a_new_repo_is_created_public_or_private(hub: Hub, hub_login: object, out: Path) -> None:
    push(out, "tester/new", private=True, quiet=True)
    push(out, "tester/open", quiet=True)
    assert hub.repos["tester/new"].private
    assert not hub.repos["tester/open"].private
    assert hub.files("tester/new", REVISION).keys() == contents(out).keys()
    assert hub.files("tester/new", "main").keys() == {"README.md"}


def test_a_private_push_into_a_public_repo_is_refused(
    hub: Hub, run_files: dict[str, bytes], out: Path
) -> None:
    with pytest.raises(RelexError, match="public repo"):
        push(out, REPO, private=True)
    assert not hub.requests(WRITES)


def test_an_existing_branch_is_refused_and_untouched(
    hub: Hub, run_files: dict[str, bytes], out: Path
) -> None:
    hub.commit(REPO, {"mine.txt": "mine"}, branch=REVISION)
    before, files = hub.heads(REPO), hub.files(REPO, REVISION)
    with pytest.raises(RelexError, match=f"{REVISION} already.*--force.*--revision.*--create-pr"):
        push(out, REPO)
    assert hub.heads(REPO) == before
    assert hub.files(REPO, REVISION) == files
    assert not hub.requests(WRITES)


def test_a_tag_is_refused_even_with_force(hub: Hub, run_files: dict[str, bytes], out: Path) -> None:
    hub.tag(REPO, REVISION)
    for force in (False, True):
        with pytest.raises(RelexError, match="tag"):
            push(out, REPO, force=force)
    assert not hub.requests(WRITES)


def test_force_replaces_a_branch_by_one_commit_on_it(
    hub: Hub, run_files: dict[str, bytes], out: Path, tmp_path: Path
) -> None:
    first = push(out, REPO, quiet=True)
    # Files that main holds and the branch does not: judged by main, they would not be sent.
    other = make_output(tmp_path / "other", value=2.0)
    hub.commit_folder(REPO, other)
    main = hub.heads(REPO)["main"]
    second = push(other, REPO, force=True, quiet=True)
    assert_holds(hub, REVISION, other)
    assert [commit.sha for commit in hub.history(REPO, REVISION)][:2] == [
        second.commit,
        first.commit,
    ]
    assert hub.heads(REPO)["main"] == main


def test_main_is_replaced_with_force_alone(
    hub: Hub, run_files: dict[str, bytes], out: Path
) -> None:
    with pytest.raises(RelexError, match="--force"):
        push(out, REPO, revision="main")
    assert not hub.requests()
    result = push(out, REPO, revision="main", force=True, quiet=True)
    assert_holds(hub, "main", out)
    assert "revision" not in result.snippet


def test_a_pull_request_proposes_exactly_the_output(
    hub: Hub, run_files: dict[str, bytes], out: Path
) -> None:
    stranger = hub.add_token("hf_AStrangersTokenWithWrite", user="stranger", orgs=())
    before = hub.heads(REPO)
    result = push(out, REPO, create_pr=True, token=stranger.value, quiet=True)
    assert hub.heads(REPO) == before
    assert result.revision == "refs/pr/1"
    assert result.url == f"{hub.url}/{REPO}/discussions/1"
    assert_holds(hub, "refs/pr/1", out)
    assert len(hub.requests("POST .*/commit/")) == 1


def test_a_pull_request_has_no_revision(hub: Hub, out: Path) -> None:
    with pytest.raises(RelexError, match="--create-pr or --revision"):
        push(out, REPO, revision="mine", create_pr=True)


@pytest.mark.parametrize("repo", ["no-namespace", "a/b/c", "a/-b", "a/b--c", "a/b.git", "ä/b"])
def test_what_is_no_repo_id_is_refused(hub: Hub, hub_login: object, out: Path, repo: str) -> None:
    with pytest.raises(RelexError, match="namespace/"):
        push(out, repo)
    assert not hub.requests()


@pytest.mark.parametrize("revision", ["refs/pr/1", "a..b", "a b", "-a", "a/", "x.lock", "0" * 40])
def test_what_is_no_branch_name_is_refused(
    hub: Hub, hub_login: object, out: Path, revision: str
) -> None:
    with pytest.raises(RelexError, match="--revision"):
        push(out, REPO, revision=revision)
    assert not hub.requests()


def test_local_paths_and_tokens_stay_at_home(
    hub: Hub, run_files: dict[str, bytes], out: Path
) -> None:
    before = contents(out)
    push(out, REPO, quiet=True)
    assert contents(out) == before
    assert SECRETS[0].encode() in before["relex_report.json"]
    there = hub.files(REPO, REVISION)
    for name in REWRITTEN:
        for secret in SECRETS:
            assert secret not in there[name].decode(), name
    report = json.loads(there["relex_report.json"])
    expected = ["run_a/checkpoint-50", "run_b/checkpoint-50"]
    assert [item["reference"] for item in report["checkpoints"]] == expected
    recipe = yaml.safe_load(there["mergekit_config.yml"])
    assert [item["model"] for item in recipe["models"]] == expected
    assert report["base"]["reference"] == recipe["base_model"] == "base"
    assert json.loads(there["config.json"]) == {"model_type": "qwen2", "_name_or_path": "base"}
    assert f"\n# {REPO.partition('/')[2]}: RLVR step " in there["README.md"].decode()
    assert f'from_pretrained("{REPO}", revision="{REVISION}")' in there["README.md"].decode()


def test_a_card_that_the_hub_refuses_is_found_before_the_upload(
    hub: Hub, run_files: dict[str, bytes], out: Path
) -> None:
    for front_matter in ("license: jane-license", "license: [", "- a list", "1: 2"):
        (out / "README.md").write_text(f"---\n{front_matter}\n---\n")
        with pytest.raises(RelexError, match=r"front matter of README\.md"):
            push(out, REPO)
    assert not hub.requests("PUT ")


def test_other_merges_are_published_under_a_name_of_their_own(
    hub: Hub, run_files: dict[str, bytes], out: Path
) -> None:
    (out / "relex_report.json").unlink()
    with pytest.raises(RelexError, match=r"relex_report\.json.*--revision"):
        push(out, REPO)
    assert not hub.requests()
    push(out, REPO, revision="ties/v1", quiet=True)
    assert_holds(hub, "ties/v1", out)
    assert b"jane" not in hub.files(REPO, "ties/v1")["mergekit_config.yml"]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGE: dict[str, Any] = {
    "a truncated shard": lambda out: truncate(out / "model-00002-of-00002.safetensors"),
    "no header": lambda out: (out / "model-00002-of-00002.safetensors").write_bytes(b"x"),
    "a missing shard": lambda out: (out / "model-00002-of-00002.safetensors").unlink(),
    "a missing index": lambda out: (out / "model.safetensors.index.json").unlink(),
    "a stale shard": lambda out: shutil.copy(
        out / "model-00002-of-00002.safetensors", out / "model-00003-of-00003.safetensors"
    ),
    "another shard's content": lambda out: shutil.copy(
        out / "model-00001-of-00002.safetensors", out / "model-00002-of-00002.safetensors"
    ),
    "an index that points outside": lambda out: (out / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"w1": f"../{out.name}/model-00001-of-00002.safetensors"}})
    ),
    "an empty index": lambda out: (out / "model.safetensors.index.json").write_text("{}"),
    "no config": lambda out: (out / "config.json").unlink(),
    "a broken config": lambda out: truncate(out / "config.json"),
    "a broken report": lambda out: truncate(out / "relex_report.json"),
    "a report that is a list": lambda out: (out / "relex_report.json").write_text("[]"),
    "a broken recipe": lambda out: (out / "mergekit_config.yml").write_text("a: [b"),
    "a temporary file": lambda out: (out / "model-00002.safetensors.tmp").touch(),
    "a dangling link": lambda out: (out / "vocab.json").symlink_to(out / "gone"),
    "no weights": lambda out: [path.unlink() for path in out.glob("*.safetensors*")],
    "Gram matrices alone": lambda out: [
        (out / "model-00001-of-00002.safetensors").rename(out / "relex_gram.safetensors"),
        [path.unlink() for path in out.glob("model*")],
    ],
    "a truncated .bin": lambda out: (out / "pytorch_model.bin").write_bytes(b"PK\x03"),
    "no folder": shutil.rmtree,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_unfinished_output_is_refused_before_any_request(
    hub: Hub, run_files: dict[str, bytes], out: Path, damage: str
) -> None:
    DAMAGE[damage](out)
    with pytest.raises(RelexError, match=str(out)):
        push(out, REPO)
    assert not hub.requests()


def test_hidden_files_are_no_part_of_the_output(
    hub: Hub, run_files: dict[str, bytes], out: Path
) -> None:
    for name in (".DS_Store", ".git/config", ".cache/x"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("x")
    push(out, REPO, quiet=True)
    assert not any(name.startswith(".") for name in hub.files(REPO, REVISION))


def test_a_gitignore_of_the_repo_takes_no_file_out_of_the_model(
    hub: Hub, run_files: dict[str, bytes], out: Path
) -> None:
    # The Hub applies the repo's own .gitignore unless a push brings one; the test Hub has none.
    from huggingface_hub import get_session

    rules: list[str] = []

    def look(request: Any) -> None:
        if "/preupload/" in str(request.url):
            rules.append(json.loads(request.content)["gitIgnore"])

    hooks = get_session().event_hooks
    get_session().event_hooks = {**hooks, "request": [*hooks["request"], look]}
    try:
        push(out, REPO, quiet=True)
    finally:
        get_session().event_hooks = hooks
    assert rules
    assert all(line.startswith("#") for rule in rules for line in rule.splitlines())


def test_quiet_prints_nothing_and_leaves_progress_bars_as_they_were(
    hub: Hub, run_files: dict[str, bytes], out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars

    enable_progress_bars()
    push(out, REPO, quiet=True)
    assert capfd.readouterr() == ("", "")
    assert not are_progress_bars_disabled()
