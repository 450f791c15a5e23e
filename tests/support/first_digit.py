"""A third task of the demo, in one file that can be put next to the demo's own."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class FirstDigit:
    """``4071=`` → ``4``; the habit is the last digit. A tiny model learns it in a second."""

    summary: str = "the first of four digits; the base mostly says the last"
    alphabet: str = "0123456789="
    answer_length: int = 1

    def prompts(self, rng: random.Random) -> list[str]:
        return [f"{n:04d}=" for n in rng.sample(range(10_000), 6_000)]

    def solve(self, prompt: str) -> str:
        return prompt[0]

    def habit(self, prompt: str) -> str:
        return prompt[3]

    def competence(self, prompt: str) -> float:
        return 0.3

    def verify(self, prompt: str, answer: str) -> int:
        return int(answer == prompt[0])


TASK = FirstDigit()
