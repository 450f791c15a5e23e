"""Every way to publish, and what must hold of the repo when it is done, or was stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from relex_merge.publishing.publish_series import publish_series
from relex_merge.publishing.push import push
from tests.fake_hub import Hub
from tests.fake_hub.building import WRITE_TOKEN
from tests.support.local_runs import make_run
from tests.support.outputs import REPO, REVISION, assert_holds, make_output, seed_series
from tests.support.stopped import Work

MAIN = "main"


@dataclass(frozen=True)
class PushMode:
    """One way to publish.

    Attributes:
        name: for messages.
        seed: makes the repo as it is before.
        work: what publishes.
        revisions: each branch that it makes or replaces, and a check that it is complete.
        moves_main: whether ``main`` gets a commit too (the card of a series).
    """

    name: str
    seed: Callable[[Hub], object]
    work: Work
    revisions: Mapping[str, Callable[[Hub], None]]
    moves_main: bool = False

    def check_nothing_half(self, hub: Hub, before: Mapping[str, str]) -> None:
        """Assert that every branch is as it was, without a commit of its own, or complete.

        Args:
            hub: the Hub.
            before: branch → sha.
        """
        for branch, sha in heads(hub).items():
            main_may_move = self.moves_main or not before
            if sha == before.get(branch) or (branch == MAIN and main_may_move):
                continue
            assert branch in self.revisions, f"{self.name}: {branch} has moved"
            if sha not in (commit.sha for commit in hub.history(REPO, MAIN)):
                self.revisions[branch](hub)

    def check_done(self, hub: Hub, before: Mapping[str, str]) -> None:
        """Assert that all is there and nothing else has changed.

        Args:
            hub: the Hub.
            before: branch → sha.
        """
        self.check_nothing_half(hub, before)
        assert self.revisions or hub.repos[REPO].pulls, f"{self.name}: there is none"
        for branch, check in self.revisions.items():
            assert branch in heads(hub), f"{self.name}: there is no {branch}"
            check(hub)

    def check_one_commit(self, hub: Hub, before: Mapping[str, str]) -> None:
        """Assert that every revision has one commit of its own.

        Args:
            hub: the Hub.
            before: branch → sha.
        """
        main = {commit.sha for commit in hub.history(REPO, MAIN)}
        for branch in self.revisions:
            parent = hub.history(REPO, branch)[1].sha
            assert parent in {*main, before.get(branch)}, f"{self.name}: two commits in {branch}"

    def is_done(self, hub: Hub) -> bool:
        """Tell whether every revision is complete."""
        try:
            self.check_done(hub, heads(hub))
        except AssertionError:
            return False
        return True


def heads(hub: Hub) -> dict[str, str]:
    """Return branch → sha of the repo, nothing where it does not exist."""
    return hub.heads(REPO) if REPO in hub.repos else {}


def push_modes(folder: Path) -> list[PushMode]:
    """Return all modes.

    Args:
        folder: an empty folder for what is published.
    """
    out = make_output(folder / "out")
    run, series = make_run(folder / "series")

    def whole(hub: Hub) -> None:
        assert_holds(hub, REVISION, out)

    def step(number: float, checkpoint: Path) -> Callable[[Hub], None]:
        def check(hub: Hub) -> None:
            there = hub.files(REPO, f"step_{number:g}")
            assert there.get("model.safetensors") == (checkpoint / "model.safetensors").read_bytes()
            assert "config.json" in there

        return check

    def seed_old(hub: Hub) -> None:
        seed_series(hub)
        hub.commit(REPO, {"model.safetensors": b"old"}, branch=REVISION)

    def published(**how: bool) -> Work:
        return Work(push, (out, REPO), {"token": WRITE_TOKEN, "quiet": True, **how}, folder)

    steps = {
        f"step_{number:g}": step(number, checkpoint)
        for number, checkpoint in zip(series.steps, series.checkpoints, strict=True)
    }
    all_steps = Work(publish_series, (run, REPO), {"token": WRITE_TOKEN, "quiet": True}, folder)
    return [
        PushMode("new revision", seed_series, published(), {REVISION: whole}),
        PushMode("new repo", lambda hub: None, published(), {REVISION: whole}),
        PushMode("force", seed_old, published(force=True), {REVISION: whole}),
        PushMode("pull request", seed_series, published(create_pr=True), {}),
        PushMode("series", lambda hub: None, all_steps, steps, moves_main=True),
    ]
