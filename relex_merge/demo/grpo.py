"""GRPO: reinforcement learning from a 0/1 verifier, without a critic.

Shao et al., "DeepSeekMath", arXiv 2402.03300. Each prompt gets a group of answers; an answer's
advantage is its reward, centred and scaled within its group. One update follows each batch of
rollouts, so the policy that is differentiated is the policy that sampled: the importance ratio is
1, clipping never acts, and the log-probabilities of the sampling pass are those of the loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relex_merge.demo.model import decode, encode
from relex_merge.demo.sampling import answer
from relex_merge.demo.settings import Settings

if TYPE_CHECKING:
    import torch

    from relex_merge.demo.tasks import Task


def advantages(rewards: torch.Tensor) -> torch.Tensor:
    """Return (r − mean) / (standard deviation + 1e-4) of each group, (P, group) of both."""
    deviation = rewards.std(1, keepdim=True) + 1e-4
    return (rewards - rewards.mean(1, keepdim=True)) / deviation


@dataclass(frozen=True)
class TrainerState:
    """What the next step needs besides the weights."""

    optimizer: dict[str, Any]
    generator: torch.Tensor


class Grpo:
    """A model in training. Deterministic for the settings, inside ``one_thread``."""

    def __init__(
        self, model: Any, tokenizer: Any, task: Task, prompts: list[str], settings: Settings
    ) -> None:
        import torch

        self.model, self.tokenizer, self.task = model, tokenizer, task
        self._how = settings.rlvr
        self._prompts = prompts
        self._questions = encode(tokenizer, prompts)
        self._rng = torch.Generator().manual_seed(settings.stream("rollouts"))
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=self._how.lr, weight_decay=0.0)
        self._done = 0

    def step(self) -> float:
        """Sample, verify, update once; return the mean reward of the rollouts."""
        import torch

        how = self._how
        rows = torch.randint(len(self._prompts), (how.prompts,), generator=self._rng)
        rollouts = answer(
            self.model,
            self._questions[rows],
            length=self.task.answer_length + 1,
            group=how.group,
            rng=self._rng,
        )
        asked = [self._prompts[row] for row in rows.tolist() for _ in range(how.group)]
        answers = decode(self.tokenizer, rollouts.tokens)
        verified = [self.task.verify(p, a) for p, a in zip(asked, answers, strict=True)]
        rewards = torch.tensor(verified, dtype=torch.float32).view(how.prompts, how.group)
        loss = -(advantages(rewards).flatten() * rollouts.logprob).mean()
        self._done += 1
        for parameters in self._optimizer.param_groups:
            parameters["lr"] = how.lr * min(1.0, self._done / max(how.warm_up, 1))
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return rewards.mean().item()

    def state(self) -> TrainerState:
        """Return what the next step needs besides the weights."""
        return TrainerState(self._optimizer.state_dict(), self._rng.get_state())

    def restore(self, state: TrainerState) -> None:
        """Go on as if never interrupted; the model must hold the weights of the same step."""
        self._optimizer.load_state_dict(state.optimizer)
        self._done = int(next(iter(state.optimizer["state"].values()))["step"])
        self._rng.set_state(state.generator)
