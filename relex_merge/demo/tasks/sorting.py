"""Digits into ascending order, ``30921=`` → ``01239``; the habit is descending order."""

from __future__ import annotations

import random
from dataclasses import dataclass

DIGITS = 5
PROBLEMS = 12_000


@dataclass(frozen=True)
class Sorting:
    """A sample of the 100,000 strings of five digits.

    The habit is strongest where the first digit is small.
    """

    summary: str = "sort five digits; the base mostly sorts them the wrong way round"
    alphabet: str = "0123456789="
    answer_length: int = DIGITS

    def prompts(self, rng: random.Random) -> list[str]:
        """Draw a sample of the strings."""
        return [f"{n:0{DIGITS}d}=" for n in rng.sample(range(10**DIGITS), PROBLEMS)]

    def solve(self, prompt: str) -> str:
        """Return the digits in ascending order."""
        return "".join(sorted(prompt.rstrip("=")))

    def habit(self, prompt: str) -> str:
        """Return the digits in descending order."""
        return self.solve(prompt)[::-1]

    def competence(self, prompt: str) -> float:
        """Return a probability that rises with the first digit."""
        return 0.16 + 0.04 * int(prompt[0])

    def verify(self, prompt: str, answer: str) -> int:
        """Return 1 for the right answer, else 0."""
        return int(answer == self.solve(prompt))


TASK = Sorting()
