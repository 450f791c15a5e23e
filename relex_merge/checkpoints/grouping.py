"""Which of the things that are there make up the series, and what to say about the others.

Names of one shape (``checkpoint-{step}``) belong together. Of several groups the one with the most
checkpoints is taken, and the others are named, so that ``--pattern`` can choose another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise

from relex_merge.checkpoints.series import Checkpoint

# Where groups are equally large, the earlier layout is taken.
_RANK = (
    "verl",
    "openrlhf",
    "transformers",
    "plain",
    "fsdp",
    "dcp",
    "branches",
    "tags",
    "subfolders",
    "commits",
)
# What loses the small updates of reinforcement learning; the same steps in float32 come first.
_NARROW = ("BF16", "F16")
_SHOWN = 12  # steps listed in a note


@dataclass(frozen=True)
class Group:
    """Checkpoints that belong together.

    Attributes:
        layout: how they are kept.
        shape: what their names have in common, ``{step}`` in the step's place.
        checkpoints: ascending by step, no step twice.
        guessed: whether it is a guess that the number is a step.
        doubles: those whose step another one has already.
    """

    layout: str
    shape: str
    checkpoints: tuple[Checkpoint, ...]
    guessed: bool = False
    doubles: tuple[Checkpoint, ...] = ()

    @property
    def order(self) -> tuple[object, ...]:
        """The better group sorts first."""
        checkpoints = self.checkpoints
        adapters = checkpoints[0].kind == "adapter"
        few = len(checkpoints) < 2
        rank = _RANK.index(self.layout)
        narrow = checkpoints[-1].dtype in _NARROW
        return (few, self.guessed, -len(checkpoints), narrow, rank, adapters, self.shape)

    @property
    def title(self) -> str:
        """What it is, for a note."""
        count, kind = len(self.checkpoints), self.checkpoints[0].kind
        steps = [checkpoint.step for checkpoint in self.checkpoints]
        what = f"{count} {kind}{'s' * (count != 1)}"
        return f"{self.layout} {self.shape} ({what}, steps {steps[0]} to {steps[-1]})"


@dataclass
class Candidate:
    """A checkpoint with the name that its step was read from."""

    checkpoint: Checkpoint
    shape: str
    family: str
    guessed: bool = False


def grouped(candidates: Iterable[Candidate], *, by_pattern: bool) -> list[Group]:
    """Group by layout, kind and shape; with a pattern the names may differ in shape."""
    families: dict[tuple[str, ...], list[Candidate]] = {}
    for item in candidates:
        family = "" if by_pattern else item.family
        key = (item.checkpoint.layout, item.checkpoint.kind, family)
        families.setdefault(key, []).append(item)
    groups = []
    for members in families.values():
        if by_pattern or len({m.checkpoint.step for m in members}) == len(members):
            groups.append(_group(members))
            continue
        shapes: dict[str, list[Candidate]] = {}
        for member in members:
            shapes.setdefault(member.shape, []).append(member)
        groups += [_group(part) for part in shapes.values()]
    return sorted(groups, key=lambda group: group.order)


def _group(members: Sequence[Candidate]) -> Group:
    """Make a group; the first of those with the same step stays."""
    by_step: dict[int, Checkpoint] = {}
    doubles = []
    for member in members:
        step = member.checkpoint.step
        if step in by_step:
            doubles.append(member.checkpoint)
        else:
            by_step[step] = member.checkpoint
    shapes = Counter(member.shape for member in members)
    return Group(
        members[0].checkpoint.layout,
        shapes.most_common(1)[0][0],
        tuple(by_step[step] for step in sorted(by_step)),
        any(member.guessed for member in members),
        tuple(doubles),
    )


@dataclass(frozen=True)
class Choice:
    """The group that was taken and what is to be said about it."""

    group: Group
    notes: tuple[str, ...] = field(default=())


def choose(groups: Sequence[Group], *, by_pattern: bool) -> Choice:
    """Take the best of several groups, which are in the order of ``Group.order``; one at least."""
    taken, others = groups[0], groups[1:]
    notes = []
    if others:
        also = "; ".join(group.title for group in others[:3])
        more = f" and {len(others) - 3} more kinds" if len(others) > 3 else ""
        why = _why(taken, others[0])
        notes.append(
            f"took {taken.title}, {why}; also there: {also}{more}; --pattern REGEX (first group = "
            "step) takes another"
        )
    if any(group.checkpoints[0].kind != taken.checkpoints[0].kind for group in others):
        notes.append(
            "there are adapters and whole models; a series has one kind, and "
            f"{taken.checkpoints[0].kind}s were taken"
        )
    if taken.guessed and not by_pattern:
        notes.append(f"that the number in {taken.shape} is a step is a guess; --pattern says it")
    return Choice(taken, (*notes, *about_steps(taken)))


def _why(taken: Group, other: Group) -> str:
    if taken.guessed != other.guessed:
        return "whose numbers say that they are steps"
    if len(taken.checkpoints) != len(other.checkpoints):
        return "which has the most checkpoints"
    if (taken.checkpoints[-1].dtype in _NARROW) != (other.checkpoints[-1].dtype in _NARROW):
        return "which is stored in float32"
    if taken.layout != other.layout:
        return f"since {taken.layout} come before {other.layout}"
    return "the first of several that are equally long"


def about_steps(group: Group) -> list[str]:
    """Return notes on steps that occur twice and on gaps."""
    notes = []
    for double in group.doubles:
        kept = next(c for c in group.checkpoints if c.step == double.step)
        same = ", the same commit" if kept.sha and kept.sha == double.sha else ""
        notes.append(
            f"step {double.step} is there twice{same}: {kept.reference} was taken, "
            f"{double.reference} was not"
        )
    if len(notes) > _SHOWN:
        notes = [*notes[:_SHOWN], f"and {len(notes) - _SHOWN} more steps are there twice"]
    missing, stride = gaps([checkpoint.step for checkpoint in group.checkpoints])
    if missing:
        listed = ", ".join(map(str, missing[:_SHOWN])) + (", …" if len(missing) > _SHOWN else "")
        steps = f"step{'s' * (len(missing) != 1)}"
        notes.append(f"gaps: {steps} {listed} missing, every {stride} elsewhere")
    return notes


def deleted(group: Group) -> list[str]:
    """Return a note on first steps that OpenRLHF has deleted: it keeps a few checkpoints only."""
    steps = [checkpoint.step for checkpoint in group.checkpoints]
    if group.layout != "openrlhf" or len(steps) < 2:
        return []
    stride = min(b - a for a, b in pairwise(steps))
    before = (steps[0] - 1) // stride
    if not before:
        return []
    return [
        f"{before} earlier step{'s' * (before != 1)} ({steps[0] - before * stride} to "
        f"{steps[0] - stride}) are not there: OpenRLHF keeps as many checkpoints as "
        "--ckpt.max_num says; set it higher for a series from the beginning of the run"
    ]


def gaps(steps: Sequence[int]) -> tuple[list[int], int]:
    """Return the steps that a regular series would have and this one has not, and its stride.

    A series is regular when more than half of the distances are the same; without that nothing is
    missing. No more steps are returned than a note has room for, and one.
    """
    distances = [b - a for a, b in pairwise(steps)]
    if not distances:
        return [], 0
    stride, count = Counter(distances).most_common(1)[0]
    if 2 * count <= len(distances):
        return [], stride
    missing: list[int] = []
    for a, b in pairwise(steps):
        if (b - a) % stride == 0:
            missing += islice(range(a + stride, b, stride), _SHOWN + 1 - len(missing))
    return missing, stride
