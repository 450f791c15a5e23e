"""The base model: taught by demonstrations that are right only part of the time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from relex_merge.demo.model import EOS, PAD, build_model, encode
from relex_merge.demo.settings import Settings

if TYPE_CHECKING:
    import torch

    from relex_merge.demo.tasks import Task


class Demonstrations:
    """Prompts with their right answers and their habits, ready to be drawn from.

    Attributes:
        question: int64 (N, prompt length).
        right: int64 (N, answer length + 1), ``EOS`` at the end and ``PAD`` after it.
        habit: the same for the habits.
        competence: float32 (N,), probability that the right answer is shown.
    """

    def __init__(self, task: Task, tokenizer: Any, prompts: list[str]) -> None:
        import torch

        def answers(texts: list[str]) -> torch.Tensor:
            rows = torch.full((len(texts), task.answer_length + 1), PAD)
            for row, ids in zip(rows, tokenizer(texts)["input_ids"], strict=True):
                row[: len(ids) + 1] = torch.tensor([*ids, EOS])
            return rows

        self.question = encode(tokenizer, prompts)
        self.right = answers([task.solve(p) for p in prompts])
        self.habit = answers([task.habit(p) for p in prompts])
        self.competence = torch.tensor([task.competence(p) for p in prompts])

    def draw(
        self, n: int, share: float | None, rng: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw questions and answers.

        Args:
            n: how many.
            share: probability of a right answer; None: the question's competence.
            rng: what they are drawn with.
        """
        import torch

        rows = torch.randint(len(self.question), (n,), generator=rng)
        likely = self.competence[rows] if share is None else torch.tensor(share)
        shown = torch.rand(n, generator=rng) < likely
        answer = torch.where(shown[:, None], self.right[rows], self.habit[rows])
        return self.question[rows], answer


def train_base(
    task: Task,
    tokenizer: Any,
    prompts: list[str],
    settings: Settings,
    tick: Callable[[], object] = lambda: None,
) -> Any:
    """Train the base model, and return it.

    Cross-entropy of the answers' tokens, AdamW, one-cycle learning rate. Deterministic for the
    settings; use inside :func:`relex_merge.demo.model.one_thread`.

    Args:
        task: what is learnt.
        tokenizer: of the task.
        prompts: what is trained on.
        settings: of the demo.
        tick: called after every step.
    """
    import torch

    how = settings.pretraining
    model = build_model(len(tokenizer), how, settings.stream("initial weights")).train()
    demonstrations = Demonstrations(task, tokenizer, prompts)
    rng = torch.Generator().manual_seed(settings.stream("demonstrations"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=how.lr, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, how.lr, total_steps=how.steps, pct_start=0.1
    )
    for step in range(how.steps):
        share = how.early_share if step < how.skill_steps else None
        question, answer = demonstrations.draw(how.batch, share, rng)
        text = torch.cat([question, answer], 1)[:, :-1]
        logits = model(text, logits_to_keep=answer.shape[1]).logits
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), answer.flatten(), ignore_index=PAD
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        tick()
    return model.eval()
