"""``.bin`` files gone wrong in ways that a seed chooses, most of them near the directory."""

from __future__ import annotations

import random

_DIRECTORY = 900  # bytes at the end of the archive, which list its records


def mutated_pickle(good: bytes, seed: int, number: int) -> bytes:
    """Return a ``.bin`` file after something happened to it, the same for the same arguments.

    Args:
        good: what ``torch.save`` wrote.
        seed: of all cases.
        number: of this case.
    """
    rng = random.Random(f"{seed}/{number}")
    content = bytearray(good)
    kind = rng.randrange(4)
    if kind == 0:
        del content[rng.randrange(len(content)) :]
    elif kind == 1:
        a, b = sorted(rng.randrange(len(content)) for _ in range(2))
        del content[a:b]
    else:
        pickled = good.index(b"PK", 4)  # the pickle is the first record
        ends = (range(pickled), range(len(content) - _DIRECTORY, len(content)))
        for _ in range(rng.choice((1, 1, 2, 10))):
            content[rng.choice(ends[kind - 2])] = rng.randrange(256)
    return bytes(content)
