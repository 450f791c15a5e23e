"""Every hyper-parameter of the demo, fixed on seeds other than those of the published tables."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, field, replace

from relex_merge.errors import RelexError

FEWEST_OBSERVED = 6  # with fewer checkpoints the trust report has nothing to backtest on


@dataclass(frozen=True)
class Pretraining:
    """The base model's size and how it is taught.

    Demonstrations are right with probability ``early_share`` for the first ``skill_steps`` steps,
    and as often as the task's competence says from then on: skill first, habit afterwards.
    """

    hidden: int = 64
    layers: int = 2
    heads: int = 4
    mlp: int = 256
    steps: int = 900
    skill_steps: int = 600
    early_share: float = 0.75
    batch: int = 192
    lr: float = 8e-3


@dataclass(frozen=True)
class Rlvr:
    """Reinforcement learning: ``prompts`` × ``group`` rollouts a step, then one AdamW update.

    Attributes:
        lr: learning rate.
        prompts: of one step.
        group: answers to each prompt.
        warm_up: steps over which the learning rate rises linearly to ``lr``.
    """

    lr: float = 6e-6
    prompts: int = 128
    group: int = 8
    warm_up: int = 0

    @property
    def rollouts(self) -> int:
        """Answers sampled and verified in one step."""
        return self.prompts * self.group


GOOD = Rlvr()

# Large steps on few rollouts: the accuracy is reached at once and the weights wander from there.
# The explained variance is high all the same; the backtests say that the line leads nowhere.
BAD = Rlvr(lr=5e-4, prompts=16, group=8)

# A learning rate that rises over the first steps: the line through all of them is too slow. The
# backtests prefer the slope of the last checkpoints.
WARM_UP = Rlvr(lr=3e-5, warm_up=20)


@dataclass(frozen=True)
class Lora:
    """An adapter on every linear layer: δ = (alpha/rank) B A.

    The larger alpha, the less A has to move for the same δ, and the straighter δ goes.
    """

    rank: int = 4
    alpha: int = 32


LORA = Rlvr(lr=4e-5)  # an adapter needs a higher rate: its B starts at 0, and A is small


@dataclass(frozen=True)
class Settings:
    """Everything that decides what the training does, and how far it goes.

    Attributes:
        task: module of :mod:`relex_merge.demo.tasks`.
        seed: of everything that is random.
        steps: length of the full run.
        observe: checkpoints that RELEX sees.
        trainer: "builtin" or "trl".
        pretraining: of the base.
        rlvr: of the run.
        lora: the adapter that is trained; None: the whole model.
        bf16: what is observed are bfloat16 copies of the checkpoints; training does not see them.
    """

    task: str
    seed: int
    steps: int
    observe: int
    trainer: str = "builtin"
    pretraining: Pretraining = field(default_factory=Pretraining)
    rlvr: Rlvr = GOOD
    lora: Lora | None = None
    bf16: bool = False

    def fingerprint(self) -> str:
        """Return what must agree for an interrupted run to be continued."""
        kept = {k: v for k, v in asdict(self).items() if k not in ("steps", "observe", "bf16")}
        return json.dumps(kept, sort_keys=True)

    def stream(self, purpose: str) -> int:
        """Return a seed for one purpose, so that no two purposes share random numbers."""
        return random.Random(f"{purpose} {self.seed}").getrandbits(62)


def make_settings(  # noqa: PLR0913  # the options of run_demo
    *,
    task: str,
    seed: int,
    steps: int,
    observe: int,
    lr: float | None,
    bad: bool,
    trainer: str,
    lora: bool = False,
    warm_up: bool = False,
    bf16: bool = False,
) -> Settings:
    """Turn a user's choices, those of :func:`relex_merge.demo.run_demo`, into settings.

    Raises:
        RelexError: the combination makes no sense.
    """
    if observe < FEWEST_OBSERVED:
        raise RelexError(
            f"--observe {observe} is too few for a line and a backtest: observe at least "
            f"{FEWEST_OBSERVED} steps"
        )
    if observe >= steps:
        raise RelexError(
            f"--observe {observe} leaves nothing to extrapolate to --steps {steps}: observe fewer "
            "steps than the run has"
        )
    if lr is not None and not 0 < lr < 1:
        raise RelexError(f"--lr {lr:g}: give a learning rate between 0 and 1, such as {GOOD.lr:g}")
    if trainer not in ("builtin", "trl"):
        raise RelexError(f"unknown trainer {trainer!r}: choose builtin or trl")
    if lora + bad + warm_up > 1:
        raise RelexError("--lora, --warm-up and --bad are settings: choose one of them")
    if bf16 and lora:
        raise RelexError("--bf16 is for whole models; leave out --lora")
    rlvr = BAD if bad else WARM_UP if warm_up else LORA if lora else GOOD
    return Settings(
        task=task,
        seed=seed,
        steps=steps,
        observe=observe,
        trainer=trainer,
        rlvr=rlvr if lr is None else replace(rlvr, lr=lr),
        lora=Lora() if lora else None,
        bf16=bf16,
    )
