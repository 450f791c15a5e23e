"""Which step of the run a name says: one rule for recipes, discovery, publishing and the callback.

A name is that of a branch, a tag or a folder, in which "/" separates folders. In this order:

1. The number behind a word for it, the last of several: ``step_50``, ``global_step50_hf``,
   ``checkpoint-50``, ``ckpt/50``, ``iter_0000050``, ``stage1-step1000-tokens4B``; ``step-50k`` is
   50,000. It comes before every other number: ``step_100_seed_1`` is 100.
2. A folder that is called by a number alone: ``runs/000000050``.
3. The last integer, which is a guess. Parts of a decimal (1.5), model sizes (8B, 270m), powers of
   ten (1e-6), dates and commit shas are no integers in this sense.

Of nested folders the innermost that says its step by 1 or 2 counts, so that ``step_50/seed_1`` is
50 and ``sweep_of_step_3/50`` is 50 too. The folders in which trainers put the model itself
(``actor/huggingface``) are passed over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from relex_merge.checkpoints.locate import local_folder
from relex_merge.errors import RelexError
from relex_merge.hub.references import HubReference, hub_reference, may_be_on_hub

MOST_DIGITS = 18  # of a step; what is longer is none

# An integer that is no part of a decimal, no size (8B, 270m) and no power of ten (1e-6).
_INTEGER = (
    rf"(?<![\d.])(?<!\d[eE])(?<!\d[eE][-+])(\d{{1,{MOST_DIGITS}}})"
    r"(?!\d|\.\d|[eE][-+]?\d|[bBmMtT](?![a-zA-Z]))"
)
_THOUSAND = r"([kK](?![a-zA-Z]))?"
_WORD = re.compile(
    r"(?:(?<![a-zA-Z])|(?<=[a-z])(?=[A-Z]))"  # at the start of a word, in camel case too
    r"(?i:(?:global[-_ ]?)?(?:steps?|checkpoints?|ch?kpts?|iter(?:ation)?s?))"
    rf"(?: ?[:=] ?|[-_. /])?{_INTEGER}{_THOUSAND}"
)
_ALONE = re.compile(rf"(\d{{1,{MOST_DIGITS}}})")
_ANY = re.compile(_INTEGER + r"(?![kK](?![a-zA-Z]))")
# Dates, with the time of day behind them, and commit shas.
_NO_STEP = re.compile(
    r"(?<!\d)(?:19|20)\d\d([-_.]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])"
    r"(?:[T_ -]+(?:[01]\d|2[0-3])(?:[-_:.h][0-5]\d(?:[-_:.m][0-5]\d)?|[0-5]\d[0-5]\d))?(?!\d)"
    r"|(?<![0-9a-zA-Z])(?:(?=\d*[a-f])(?=[a-f]*\d)[0-9a-f]{7,40}|\d{40})(?![0-9a-zA-Z])"
)
# Folders in which trainers keep the model of the step that the folder above names.
_INNER = {
    "actor",
    "huggingface",
    "hf",
    "hf_model",
    "lora_adapter",
    "merged",
    "model",
    "policy",
    "pytorch_model_fsdp_0",
    "weights",
}


@dataclass(frozen=True)
class Named:
    """A name with a step in it.

    Attributes:
        name: the whole name.
        step: the number.
        shape: the name with ``{step}`` in the place of the number.
        guessed: whether nothing says that the number is a step.
    """

    name: str
    step: int
    shape: str
    guessed: bool = False

    @property
    def family(self) -> str:
        """The shape with every other number blanked: tokens counted in a name change with it."""
        return re.sub(r"\d+", "#", self.shape)


def read_name(name: str) -> Named | None:
    """Return the step in the name of a branch, a tag or a folder (a path); None without one."""
    text = _blanked(name)
    for start, part in reversed(_parts(text)):
        if found := _last(_WORD, part):
            return _named(name, found, start)
        if found := _ALONE.fullmatch(part):
            return _named(name, found, start)
    found = _last(_ANY, text)
    return _named(name, found, guessed=True) if found else None


def read_title(title: str) -> Named | None:
    """Return the step that a word says in the title of a commit ("Upload 12 files" says none)."""
    found = _last(_WORD, _blanked(title))
    return _named(title, found) if found else None


def step_of(reference: str) -> int | None:
    """Return the step that ``path[@revision]`` or ``base+adapter[@revision]`` names, else None.

    The rule of this file is applied to the revision, else to the folder. A folder in a Hub repo
    that says its step comes before the revision (``org/run/checkpoint-50@v2``). Of a Hub repo
    without a revision only a word counts, since a version is no step. Of a local folder its own
    name counts and not those above it, where a project or a job may have a number.
    """
    model = reference.rpartition("+")[2]
    path, _, revision = model.partition("@")
    if revision or (may_be_on_hub(path) and not local_folder(path)):
        named = _named_on_hub(hub_reference(model))
    else:
        named = _named_on_disk(path)
    return named.step if named else None


def compile_pattern(pattern: str | None) -> re.Pattern[str] | None:
    """Compile the user's pattern. Raises RelexError for one that is not valid or has no group."""
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise RelexError(f"the pattern {pattern!r} is no regular expression: {error}") from error
    if not compiled.groups:
        raise RelexError(
            f"the pattern {pattern!r} has no group; put the step in one, for example step_(\\d+)"
        )
    return compiled


def read_by(pattern: re.Pattern[str] | None, name: str) -> Named | None:
    """Return the step by the user's pattern, whose first group it is, or by :func:`read_name`.

    Raises RelexError when the group holds something else.
    """
    if pattern is None:
        return read_name(name)
    found = pattern.search(name)
    if not found or found[1] is None:
        return None
    if not _ALONE.fullmatch(found[1]):
        raise RelexError(
            f"the first group of the pattern {pattern.pattern!r} finds {found[1]!r} in {name}, "
            "which is not a step number; put (\\d+) around the step"
        )
    return _named(name, found)


def _blanked(name: str) -> str:
    """Return the name, as long as it was, without the numbers that are no steps."""
    return _NO_STEP.sub(lambda found: "#" * len(found[0]), name)


def _parts(name: str) -> list[tuple[int, str]]:
    """Return the folders of a path, each with its place in it."""
    return [(found.start(), found[0]) for found in re.finditer(r"[^/]+", name)]


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = None
    for found in pattern.finditer(text):  # noqa: B007  # the last one is wanted
        pass
    return found


def _named(name: str, found: re.Match[str], start: int = 0, *, guessed: bool = False) -> Named:
    """Return the name with the number that was found in its part from ``start`` on."""
    first, last = start + found.start(1), start + found.end(1)
    thousands = found.re is _WORD and found[2] is not None
    step = int(found[1]) * (1000 if thousands else 1)
    return Named(name, step, f"{name[:first]}{{step}}{name[last:]}", guessed)


def _named_on_hub(place: HubReference) -> Named | None:
    folder = read_name(place.folder)
    if folder is not None and not folder.guessed:
        return folder
    if not place.folder and not place.revision:
        return read_title(place.repo)
    return read_name(place.revision or "") or folder


def _named_on_disk(path: str) -> Named | None:
    """Read the folder's own name; a number in it that is a guess gives way to ``step_50`` above."""
    parts = list(Path(path).parts)
    while len(parts) > 1 and parts[-1].lower() in _INNER:
        parts.pop()
    named = read_name(parts[-1]) if parts else None
    if named is not None and named.guessed and len(parts) > 1 and _WORD.fullmatch(parts[-2]):
        return read_name("/".join(parts[-2:]))
    return named
