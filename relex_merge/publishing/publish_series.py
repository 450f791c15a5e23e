"""The checkpoints of a run as revisions of a Hub repo: all at once, or while it trains."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from relex_merge.checkpoints.base_model import config_of, own_config
from relex_merge.checkpoints.configs import check_base
from relex_merge.checkpoints.series import Checkpoint, Series
from relex_merge.errors import RelexError
from relex_merge.places.address import is_place, normal, place_or_path
from relex_merge.publishing.converted import DTYPES
from relex_merge.publishing.from_place import publish_from_place
from relex_merge.publishing.publisher import RunFacts, SeriesPublisher, check_whole, publish_all
from relex_merge.publishing.revision_names import DEFAULT_FORMAT, RevisionFormat
from relex_merge.publishing.wanted import Wanted
from relex_merge.publishing.watch import Watch

SETTLE = 10.0  # seconds
POLL = 5.0  # seconds


@dataclass(frozen=True)
class SeriesResult:
    """What was done.

    Attributes:
        url: page of the repo.
        published: steps whose revision was made.
        before: steps whose revision was complete already.
        waiting: step → why it was not published; only after watching.
    """

    url: str
    published: tuple[int, ...]
    before: tuple[int, ...]
    waiting: dict[int, str] = field(default_factory=dict)


def _say_nothing(message: str) -> None:
    """Drop a remark, for callers who do not want any."""


def publish_series(  # noqa: PLR0913  # a public function: each option is a keyword of its own
    folder: str | Path,
    repo: str,
    *,
    revision_format: str = DEFAULT_FORMAT,
    observe: str | None = None,
    pattern: str | None = None,
    base: str | None = None,
    dtype: str | None = None,
    private: bool = False,
    watch: bool = False,
    until_step: int | None = None,
    settle: float = SETTLE,
    poll: float = POLL,
    token: str | None = None,
    quiet: bool = False,
    notify: Callable[[str], None] = _say_nothing,
    stop: threading.Event | None = None,
) -> SeriesResult:
    """Publish every checkpoint below ``folder`` as a revision of ``repo``, in one commit each.

    Weights, configuration and tokenizer go; optimizer state, training arguments and logs stay. The
    card on ``main`` lists the steps. A revision that is complete already is skipped, by its hashes,
    so that the call can simply be repeated.

    Args:
        folder: where a trainer leaves its checkpoints, or the address of such a place; see
            ``relex-merge recipe`` for layouts.
        repo: repo id, ``namespace/name``; created if there is none.
        revision_format: name of a revision, with ``{step}`` in it.
        observe: which steps: ``1-75``, ``1-75:5``, ``1,5,10``, ``15%``.
        pattern: a regular expression on the paths below ``folder``; its first group is the step.
        base: the model that the run started from, for the card; by default what the checkpoints
            say.
        dtype: of the weights that are published, ``float32``, ``bfloat16`` or ``float16``; by
            default as they are stored. Shards become safetensors files in any case.
        private: whether a new repo is private.
        watch: go on while a training run writes, until the last step was published, ``stop`` is
            set, or Ctrl-C.
        until_step: the step to end the watch with; by default the run's own last one.
        settle: seconds without a change before a watched checkpoint counts as written.
        poll: seconds between two looks while watching.
        token: access token; by default the one that ``huggingface_hub`` finds.
        quiet: no progress bars.
        notify: called with remarks for the user.
        stop: ends the watch when it is set.

    Returns:
        Which steps were published, and where.

    Raises:
        RelexError: nothing was found, a checkpoint is not whole, a revision is there with other
            content, or the Hub refuses. All of it before anything is uploaded, unless while
            watching.
    """
    if until_step is not None and not watch:
        raise RelexError("--until-step is for --watch")
    named = RevisionFormat(revision_format)
    given = place_or_path(folder)
    wanted = Wanted(given, pattern, observe)
    learner = Learner(repo, named, _reference(base), notify)
    if dtype is not None and dtype not in DTYPES:
        raise RelexError(f"dtype {dtype}: choose one of {', '.join(DTYPES)}")
    open_repo = partial(
        SeriesPublisher.open, repo, named, private=private, token=token, dtype=dtype, quiet=quiet
    )
    if watch:
        if isinstance(given, str):
            raise RelexError(
                f"--watch is for a folder on this disk; publish {given} again when more is there"
            )
        if not given.expanduser().is_dir():
            raise RelexError(f"{folder} is not a folder; make it, or wait until the run has")
        publisher = open_repo()
        watching = Watch(wanted, publisher, learner.learn, notify, settle, poll, until_step)
        watching.run(stop or threading.Event())
        done = (tuple(watching.published), tuple(watching.before), watching.waiting)
        return SeriesResult(publisher.url(), *done)
    series = wanted.series()
    from_place = isinstance(given, str)
    if not from_place:
        check_whole(series.checkpoints)
    run = learner.learn(series)
    publisher = open_repo()
    publish = publish_from_place if from_place else publish_all
    published, before = publish(publisher, series.checkpoints, run.base, notify)
    if not publisher.write_card(run):
        notify(f"{repo} has a README.md of its own on main, which was left as it is")
    return SeriesResult(publisher.url(), tuple(published), tuple(before))


def _reference(base: str | None) -> str | None:
    """Return a folder by its full path, so that it is not taken for a repo."""
    if base is not None and is_place(base):
        return normal(base)
    if base is None or not Path(base).expanduser().is_dir():
        return base
    return str(Path(base).expanduser().resolve())


class Learner:
    """Gathers what discovery finds out about a run, and tells the user once.

    Args:
        repo: repo id that is published to.
        format: names of its revisions.
        base: the model that the run started from, where the user has named it.
        notify: called with remarks.
    """

    def __init__(
        self, repo: str, format: RevisionFormat, base: str | None, notify: Callable[[str], None]
    ) -> None:
        self._repo = repo
        self._format = format
        self._base = base
        self._notify = notify
        self._told: set[str] = set()
        self._checked = False

    def learn(self, series: Series) -> RunFacts:
        """Return what is known by now. Raises RelexError when the base is of another model."""
        for note in series.notes:
            if note not in self._told:
                self._notify(note)
        self._told.update(series.notes)
        if self._base is None and series.base is not None:
            self._base = self._on_hub(series, series.base.reference)
            self._notify(f"base: {self._base}, from {series.base.found_in}")
        elif not self._checked and self._base is not None:
            _check_fits(self._base, series.checkpoints[0])
        self._checked = True
        adapter = any(checkpoint.kind == "adapter" for checkpoint in series.checkpoints)
        return RunFacts(self._base, adapter, series.last_step)

    def _on_hub(self, series: Series, base: str) -> str:
        """Return the base as others find it: the run's own step 0 is a revision, too."""
        steps = {checkpoint.reference: checkpoint.step for checkpoint in series.checkpoints}
        if base not in steps:
            return base
        return f"{self._repo}@{self._format.name(steps[base])}"


def _check_fits(base: str, checkpoint: Checkpoint) -> None:
    """Raise RelexError when a base that was named is not there, or is another model."""
    if checkpoint.kind == "model":
        check_base(base, config_of(base), checkpoint.reference, own_config(checkpoint.reference))
