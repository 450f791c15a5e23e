"""``TrajectoryCallback``: follows the trajectory of a run while transformers' Trainer trains.

What goes wrong in here never ends a training run: it is logged as a warning, and the next save
catches up. Only what could be known before the first step is an error, when training begins.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from relex_merge.checkpoints.files import SERIES_FOLDER
from relex_merge.checkpoints.series import Checkpoint
from relex_merge.publishing.publisher import RunFacts, SeriesPublisher, publish_all
from relex_merge.publishing.revision_names import DEFAULT_FORMAT, RevisionFormat
from relex_merge.training import settings
from relex_merge.training.follow import Trajectory
from relex_merge.training.live import from_first_rank, live_numbers
from relex_merge.training.series_folder import SeriesFolder
from relex_merge.training.stopping import Figures, StopRule

if TYPE_CHECKING:
    import torch
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

    from relex_merge.engine.sample_memory import Wanted

_LOG = logging.getLogger(__name__)


@contextmanager
def _logged(state: TrainerState) -> Iterator[None]:
    """Log what goes wrong with a checkpoint; the run matters more."""
    try:
        yield
    except Exception as error:
        _LOG.warning("step %d is not part of the trajectory yet: %s", state.global_step, error)


class TrajectoryCallback(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Links every saved checkpoint into a series, and tells how straight its trajectory is.

    At each save: weights, configuration and tokenizer are linked into the series folder, which
    keeps them when ``save_total_limit`` takes the checkpoint away; with ``repo`` they are published
    as a revision, in the background; the Gram matrices grow by the new checkpoint's row; explained
    variance, R², straightness, the same-ratio backtest skill and that of the widest backtest are
    logged under ``relex/`` (trackers show them as ``train/relex/…``); and
    ``relex_recipe.yml`` in the series folder is what ``relex-merge run`` finishes the job with.

    Use it with :meth:`attach`, so that the figures reach the trainer's own logger (W&B,
    TensorBoard, …); in ``Trainer(callbacks=[...])`` alone they go to ``trainer_state.json``.

    The figures come from a sample of a million numbers of every checkpoint, which is held in memory
    (4 MB a checkpoint, whatever the size of the model): of a new checkpoint it is taken from the
    live parameters, those of FSDP2 included. Models with no more numbers are held whole. With
    ``exact`` all numbers count: then the new checkpoint is read once, and the earlier ones are
    needed again, for T·d multiplications. As far as ``memory`` goes they are held there as they are
    stored; the rest is read from the disk again.

    Args:
        target_step: where to extrapolate to; by default the run's own ``max_steps``, and once that
            is reached the recipe names no target.
        base_model: the model that the run starts from, a folder or a Hub id; by default what the
            model says that it was loaded from.
        repo: Hub repo to publish to; None: link only.
        revision_format: name of a step's revision, as for ``publish_series``.
        private: whether a new repo is private.
        token: access token; by default the one that ``huggingface_hub`` finds.
        series: the series folder, by default ``relex_series`` in the output folder. It must take
            hard links from there when ``save_total_limit`` is set.
        stop_when: :class:`relex_merge.StopWhen`, or a function of the figures of all checkpoints so
            far, that says whether to stop training.
        exact: form the Gram matrices from all numbers, so that ``relex-merge run --reuse`` takes
            them. From a sample it forms its own.
        memory: with ``exact``, bytes for earlier checkpoints; by default a quarter of what is free
            at the start.
    """

    def __init__(  # noqa: PLR0913  # a public class: each option is a keyword of its own
        self,
        target_step: float | None = None,
        *,
        base_model: str | Path | None = None,
        repo: str | None = None,
        revision_format: str = DEFAULT_FORMAT,
        private: bool = False,
        token: str | None = None,
        series: str | Path | None = None,
        stop_when: StopRule | None = None,
        exact: bool = False,
        memory: int | None = None,
    ) -> None:
        self.stopped = False
        self._target = target_step
        self._base = None if base_model is None else str(base_model)
        self._repo = repo
        self._format = RevisionFormat(revision_format)
        self._private = private
        self._token = token
        self._series = None if series is None else Path(series)
        self._stop_when = stop_when
        self._memory = memory
        self._exact = exact
        self._trainer: weakref.ref[Trainer] | None = None
        self._trajectory: Trajectory | None = None
        self._publisher: SeriesPublisher | None = None
        self._facts = RunFacts()
        self._uploads: ThreadPoolExecutor | None = None
        self._pending: list[Future[None]] = []

    def attach(self, trainer: Trainer) -> TrajectoryCallback:
        """Add this callback to a trainer and log through it; return the callback."""
        self._trainer = weakref.ref(trainer)
        if self not in trainer.callback_handler.callbacks:
            trainer.add_callback(self)
        return self

    @property
    def history(self) -> list[Figures]:
        """Figures of every checkpoint from the second on."""
        return list(self._trajectory.history) if self._trajectory else []

    @property
    def recipe(self) -> Path | None:
        """The recipe that finishes the job, once training has begun."""
        return self._trajectory.recipe if self._trajectory else None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check everything that can be wrong, and take up what an earlier run left.

        Raises:
            RelexError: the run cannot be followed as it is.
        """
        self.stopped = False
        if not state.is_world_process_zero:
            return
        settings.check_saves(args)
        base = settings.base_of(kwargs.get("model"), self._base)
        folder = SeriesFolder(self._series or Path(args.output_dir) / SERIES_FOLDER)
        folder.prepare(Path(args.output_dir), deletes=args.save_total_limit is not None)
        target = self._target if self._target is not None else float(state.max_steps)
        self._trajectory = Trajectory(
            folder,
            base,
            target,
            settings.budget(self._memory, exact=self._exact),
            assumed=self._target is None,
            exact=self._exact,
        )
        if self._repo is not None:
            self._publisher = SeriesPublisher.open(
                self._repo, self._format, private=self._private, token=self._token, quiet=True
            )
            self._facts = RunFacts(base, last_step=state.max_steps)
            self._uploads = ThreadPoolExecutor(1, "relex-publish")
        self._trajectory.resume(state.global_step)
        if self._trainer is None:
            _LOG.warning(
                "TrajectoryCallback logs to trainer_state.json only; callback.attach(trainer) "
                "brings its figures to the trainer's reports (W&B, TensorBoard, …)"
            )

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take in the checkpoint that was just saved.

        Rank 0 does that; every rank brings what it has of the parameters, and learns to stop.
        """
        stop = False
        wanted: list[Wanted] | None = None
        if self._trajectory is not None:
            with _logged(state):
                wanted = self._link(self._trajectory, args, state)
        live: dict[str, torch.Tensor] = {}
        asked = wanted if self._exact else from_first_rank(wanted)
        if asked and kwargs.get("model") is not None:
            try:
                live = live_numbers(kwargs["model"], asked)
            except Exception as error:  # the files have the same numbers
                _LOG.warning("the parameters could not be sampled (%s)", error)
        if self._trajectory is not None and wanted is not None:
            with _logged(state):
                stop = self._measure(self._trajectory, state, live)
        if self._stop_when is not None and from_first_rank(stop):
            control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Wait for uploads that are under way; say what was kept, and what comes next."""
        if self._uploads is not None:
            self._uploads.shutdown(wait=True)
            self._uploads = None
        self._say_failed(wait=True)
        if self._trajectory is not None:
            try:
                tqdm.write(self._trajectory.epilogue())
            except Exception as error:  # the run is done, and that matters more
                _LOG.warning("what the trajectory has kept cannot be told: %s", error)

    def _link(
        self, trajectory: Trajectory, args: TrainingArguments, state: TrainerState
    ) -> list[Wanted]:
        """Link and publish a checkpoint; return what is wanted of the live parameters."""
        step = state.global_step
        saved = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{step}"
        linked = trajectory.folder.add(saved, step)
        self._say_failed()
        if self._publisher is not None and self._uploads is not None:
            adapter = not (linked / "config.json").is_file()
            checkpoint = Checkpoint(
                step, str(linked), "plain", kind="adapter" if adapter else "model"
            )
            run = replace(self._facts, adapter=adapter)
            upload = self._uploads.submit(self._publish, self._publisher, checkpoint, run)
            self._pending.append(upload)
        return trajectory.wanted()

    def _measure(
        self, trajectory: Trajectory, state: TrainerState, live: dict[str, torch.Tensor]
    ) -> bool:
        """Measure and log a checkpoint that is linked; return whether to stop."""
        figures = trajectory.update(state.global_step, live)
        if figures is None:
            return False
        for remark in trajectory.remarks if len(trajectory.history) == 1 else ():
            _LOG.warning("%s", remark)
        self._log(state, figures.logs())
        if self._stop_when is None or self.stopped or not self._stop_when(trajectory.history):
            return False
        self.stopped = True
        _LOG.warning(
            "the trajectory is straight enough; training stops at step %d", state.global_step
        )
        return True

    def _publish(self, publisher: SeriesPublisher, checkpoint: Checkpoint, run: RunFacts) -> None:
        """Publish a checkpoint, in the background: its links outlive what the trainer deletes."""
        publish_all(publisher, [checkpoint], run.base, _LOG.info)
        publisher.write_card(run)

    def _say_failed(self, wait: bool = False) -> None:
        """Warn about uploads that failed since the last look."""
        done = [upload for upload in self._pending if wait or upload.done()]
        self._pending = [upload for upload in self._pending if upload not in done]
        for upload in done:
            error = upload.exception()
            if error is not None:
                _LOG.warning(
                    "a checkpoint was not published: %s; relex-merge publish-series sends it later",
                    error,
                )

    def _log(self, state: TrainerState, logs: dict[str, float]) -> None:
        from transformers import Trainer

        trainer = self._trainer() if self._trainer else None
        if trainer is None:
            state.log_history.append({**logs, "epoch": state.epoch, "step": state.global_step})
            return
        # The base class's own: those of TRL's trainers add what they have gathered, and clear it.
        Trainer.log(trainer, logs)
