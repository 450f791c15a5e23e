"""Which file a tensor of a model in several files comes from."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from relex_merge.errors import RelexError


def tensors_of(
    held: Mapping[str, Collection[str]], places: Mapping[str, str], label: str
) -> Iterator[tuple[str, str]]:
    """Yield the tensors of a model and the file that each comes from, in the order of the files.

    Args:
        held: file → the tensors in it.
        places: tensor → file, as the index has it; empty where there is none.
        label: names the model in messages.

    Raises:
        RelexError: a file lacks a tensor that the index promises.
    """
    for tensor, file in places.items():
        if tensor not in held[file]:
            raise RelexError(
                f"{label}: shard {file} lacks the tensor {tensor!r} that the index promises; fetch "
                "it again"
            )
    for file, tensors in held.items():
        for tensor in tensors:
            if places.get(tensor, file if not places else None) == file:
                yield tensor, file
