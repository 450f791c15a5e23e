"""Sums of two two-digit numbers, ``47+85=`` → ``132``; the habit is to copy the first number."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Addition:
    """All 8,100 sums of two numbers from 10 to 99; answers have three digits (``12+34=046``).

    The habit is strongest where the first digit is small, so problems turn from wrong to right
    one after another as training goes on, and not all at once.
    """

    summary: str = "two-digit sums; the base mostly repeats the first number"
    alphabet: str = "0123456789+="
    answer_length: int = 3

    def prompts(self, rng: random.Random) -> list[str]:
        """Draw every sum, in random order."""
        sums = [f"{a}+{b}=" for a in range(10, 100) for b in range(10, 100)]
        rng.shuffle(sums)
        return sums

    def solve(self, prompt: str) -> str:
        """Return the sum, with three digits."""
        a, b = prompt.rstrip("=").split("+")
        return f"{int(a) + int(b):03d}"

    def habit(self, prompt: str) -> str:
        """Return the first number, with three digits."""
        return f"{int(prompt[:2]):03d}"

    def competence(self, prompt: str) -> float:
        """Return a probability that rises with the first digit."""
        return 0.16 + 0.04 * int(prompt[0])

    def verify(self, prompt: str, answer: str) -> int:
        """Return 1 for the right answer, else 0."""
        return int(answer == self.solve(prompt))


TASK = Addition()
