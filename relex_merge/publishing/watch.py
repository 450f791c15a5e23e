"""Publishing while a training run writes: look, publish what is ready, wait, look again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from relex_merge.checkpoints.files import TRAINER_STATE
from relex_merge.checkpoints.json_files import peek_json
from relex_merge.checkpoints.series import Checkpoint, Series
from relex_merge.errors import RelexError
from relex_merge.publishing.publisher import (
    Notify,
    RefusedError,
    RunFacts,
    SeriesPublisher,
    publish_all,
)
from relex_merge.publishing.readiness import Readiness
from relex_merge.publishing.wanted import Wanted

RETRY = 30.0  # seconds to wait after the Hub could not be reached


@dataclass
class Watch:
    """One run that is watched.

    Attributes:
        wanted: which of its checkpoints are published.
        publisher: of the repo that they go to.
        learn: called with every series that was found, before anything of it is published.
        notify: called with remarks for the user.
        settle: seconds that a checkpoint must not have changed.
        poll: seconds between two looks.
        until: the step to end with, by default the last one of the run where the trainer says
            which that is.
        published: steps whose revision was made.
        before: steps whose revision was complete already.
        waiting: step → why it was not published yet.
    """

    wanted: Wanted
    publisher: SeriesPublisher
    learn: Callable[[Series], RunFacts]
    notify: Notify
    settle: float
    poll: float
    until: int | None = None
    published: list[int] = field(default_factory=list)
    before: list[int] = field(default_factory=list)
    waiting: dict[int, str] = field(default_factory=dict)
    _card_due: bool = False
    _said: str = ""

    def run(self, stop: threading.Event) -> None:
        """Publish until the last step is done, ``stop`` is set, or Ctrl-C.

        Raises:
            RelexError: for what waiting cannot mend: a revision with other content, or checkpoints
                of different models.
        """
        readiness = Readiness(self.settle)
        try:
            while not stop.is_set():
                series = self.wanted.so_far()
                pause = self.poll
                if series is not None:
                    pause = self._round(series, readiness)
                    if self._ends(series):
                        return
                stop.wait(pause)
        except KeyboardInterrupt:
            self.notify("stopped watching")

    def _round(self, series: Series, readiness: Readiness) -> float:
        """Publish what is ready; return the seconds to wait before the next look."""
        run = self.learn(series)
        self.waiting = {}
        pause = self.poll
        for checkpoint in series.checkpoints:
            if checkpoint.step in (*self.published, *self.before):
                continue
            try:
                reason = readiness.why_not(checkpoint, series)
                if reason is None:
                    self._publish(checkpoint, run.base, readiness)
                else:
                    self.waiting[checkpoint.step] = reason
            except RefusedError:
                raise
            except (RelexError, OSError) as error:
                self.publisher.forget(checkpoint)
                self.waiting[checkpoint.step] = str(error)
                if readiness.unchanged(checkpoint):  # so it was the Hub
                    self._say(f"{error}; trying again in {RETRY:g} s")
                    pause = RETRY
                    break
        return max(pause, self._card(run)) if self._card_due else pause

    def _publish(self, checkpoint: Checkpoint, base: str | None, readiness: Readiness) -> None:
        published, before = publish_all(
            self.publisher, [checkpoint], base, self.notify, readiness.unchanged
        )
        self.published += published
        self._card_due = bool(published) or self._card_due
        self.before += before
        self._said = ""

    def _card(self, run: RunFacts) -> float:
        """Write the card; return the seconds to wait before the next attempt."""
        try:
            self.publisher.write_card(run)
            self._card_due = False
        except RelexError as error:
            self._say(f"the card was not written: {error}")
            return RETRY
        return 0.0

    def _say(self, message: str) -> None:
        """Tell the user once, however often it is tried."""
        if message != self._said:
            self.notify(message)
        self._said = message

    def _ends(self, series: Series) -> bool:
        done = {*self.published, *self.before}
        if self.until is not None:
            return any(step >= self.until for step in done)
        last = series.checkpoints[-1]
        state = peek_json(Path(last.reference) / TRAINER_STATE)
        end = state.get("max_steps")
        return bool(end) and state.get("global_step") == end and last.step in done
