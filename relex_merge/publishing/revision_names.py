"""What the revision of a step is called: ``step_{step}``, and back from a branch to its step."""

from __future__ import annotations

import re
from dataclasses import dataclass
from string import Formatter

from relex_merge.errors import RelexError
from relex_merge.hub.references import BRANCH

DEFAULT_FORMAT = "step_{step}"


@dataclass(frozen=True)
class RevisionFormat:
    """A name with one ``{step}`` in it; ``{step:06d}`` pads with zeros.

    Attributes:
        text: the name.

    Raises:
        RelexError: for any other text, and for names that no branch can have.
    """

    text: str = DEFAULT_FORMAT

    def __post_init__(self) -> None:
        try:
            fields = [(name, spec) for _, name, spec, _ in Formatter().parse(self.text) if name]
        except ValueError as error:
            raise RelexError(self._wrong(f": {error}")) from error
        if [name for name, _ in fields] != ["step"] or not re.fullmatch(
            r"(0?\d+)?d?", fields[0][1] or ""
        ):
            raise RelexError(self._wrong(""))
        if not BRANCH.fullmatch(self.name(1)):
            raise RelexError(
                f"--revision-format {self.text!r}: {self.name(1)!r} cannot be the name of a branch;"
                " use letters, digits, - _ . / and {step}"
            )

    def _wrong(self, why: str) -> str:
        return (
            f"--revision-format {self.text!r} does not name a revision for each step{why}; write "
            f"{{step}} once, as in {DEFAULT_FORMAT}, or {{step:06d}} for zeros in front"
        )

    def name(self, step: int) -> str:
        """Return the revision of a step."""
        return self.text.format(step=step)

    def step(self, revision: str) -> int | None:
        """Return the step that a revision of this format is of, None for any other."""
        for digits in re.findall(r"\d+", revision):
            if self.name(int(digits)) == revision:
                return int(digits)
        return None

    def steps(self, first: int, last: int, stride: int) -> str:
        """Return the revisions of steps at equal distances as one brace range of a recipe."""
        ends = [self._number(step) for step in (first, last)]
        by = f"..{stride}" if stride != 1 else ""
        return self._around(f"{{{ends[0]}..{ends[1]}{by}}}")

    def _number(self, step: int) -> str:
        spec = next(spec for _, name, spec, _ in Formatter().parse(self.text) if name)
        return format(step, spec or "")

    def _around(self, inner: str) -> str:
        parts = Formatter().parse(self.text)
        return "".join(text + (inner if name else "") for text, name, _, _ in parts)
