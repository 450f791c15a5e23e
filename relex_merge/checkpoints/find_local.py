"""Checkpoints below a local folder, as the trainers leave them.

transformers, TRL and open-r1 write ``checkpoint-50``, verl ``global_step_50/actor/huggingface``,
OpenRLHF ``global_step50_hf``; any other folder with a number and a model in it is taken too.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from relex_merge.checkpoints import configs
from relex_merge.checkpoints.base_model import or_step_zero, propose
from relex_merge.checkpoints.files import has_fsdp_shards
from relex_merge.checkpoints.folders import ModelFolder, model_folders
from relex_merge.checkpoints.grouping import Candidate, choose, grouped
from relex_merge.checkpoints.series import Base, Checkpoint, NothingFoundError, Series
from relex_merge.checkpoints.steps import Named, compile_pattern, read_by, read_name
from relex_merge.errors import RelexError

TRAINER_STATE = "trainer_state.json"


def find_local(folder: str | Path, pattern: str | None = None) -> Series:
    """The series below ``folder``.

    pattern: a regular expression on the path relative to ``folder``, whose first group is the step;
    only folders that it finds count. Checkpoints without whole weights are left out and noted.

    Raises:
        NothingFoundError: there is none; the message says what was looked for and what is there.
        RelexError: the pattern is not usable, or the checkpoints are of different models.
    """
    compiled = compile_pattern(pattern)
    root = Path(folder).expanduser().absolute()  # a symbolic link may be there for its name
    if not root.is_dir():
        raise NothingFoundError(f"{root} is not a folder")
    seen = list(model_folders(root, everything=pattern is not None))
    named = [(f, read_by(compiled, f.name)) for f in seen if f.name != "."]
    numbered = [(f, n) for f, n in named if n is not None]
    whole = [_candidate(f, n) for f, n in numbered if f.fault is None]
    if not whole:
        raise NothingFoundError(_nothing(root, seen, [f for f, _ in numbered], pattern))
    groups = grouped(whole, by_pattern=pattern is not None)
    choice = choose(groups, by_pattern=pattern is not None)
    taken = choice.group.checkpoints
    check_nameable(taken)
    folders = {str(f.path): f for f, _ in numbered}
    configurations = [
        (c.reference, configs.read_json(Path(c.reference) / configs.config_name(c.kind)))
        for c in taken
    ]
    configs.check_same_model(
        [(label, configs.identity(one, taken[0].kind)) for label, one in configurations],
        "put each run into a folder of its own, or choose one with --pattern",
    )
    first = folders[taken[0].reference]
    base, remarks = _base(root, configurations[0][1], first, [f.path for f, _ in numbered])
    steps = {c.step for c in taken}
    faulty = [f for f, n in numbered if f.fault and n.step not in steps]
    return Series(
        str(root),
        choice.group.layout,
        taken,
        or_step_zero(base, taken),
        _last_step(root, taken),
        (*choice.notes, *_faults(faulty), *remarks),
    )


def check_nameable(taken: Sequence[Checkpoint]) -> None:
    """Raise RelexError for a path that mergekit would read as something else."""
    for checkpoint in taken:
        sign = next((sign for sign in "@+" if sign in checkpoint.reference), None)
        if sign:
            raise RelexError(
                f"{checkpoint.reference} has {sign!r} in its path, which mergekit takes for a "
                "revision or an adapter; move it, or go through a symbolic link without one"
            )


def _candidate(folder: ModelFolder, named: Named) -> Candidate:
    assert folder.weights is not None  # it is whole
    files = folder.weights.files
    changed = max((folder.path / file).stat().st_mtime for file in files)
    checkpoint = Checkpoint(
        named.step,
        str(folder.path),
        _layout(named),
        size=sum(folder.sizes[file] for file in files),
        dtype=folder.dtype,
        date=datetime.fromtimestamp(int(changed), timezone.utc).isoformat(),
        kind=folder.weights.kind,
    )
    return Candidate(checkpoint, named.shape, named.family, named.guessed)


def _layout(named: Named) -> str:
    """Which trainer names its folders so."""
    plain = read_name(named.name)
    shape = plain.shape if plain else named.shape
    if "global_step_{step}/" in shape or "global_steps_{step}/" in shape:
        return "verl"
    if "global_step{step}_hf" in shape:
        return "openrlhf"
    if shape.rpartition("/")[2] == "checkpoint-{step}":
        return "transformers"
    return "plain"


def _faults(faulty: Sequence[ModelFolder]) -> list[str]:
    """Notes on checkpoints that were left out."""
    shards = [f for f in faulty if has_fsdp_shards(f.sizes)]
    inside = {f.path / "huggingface" for f in shards}  # has a configuration, and waits for weights
    notes = [
        f"{f.name} was left out: {_fault(f)}"
        for f in faulty
        if f not in shards and f.path not in inside
    ]
    if shards:
        names = ", ".join(f.name for f in shards)
        notes.append(f"left out, since they hold FSDP shards only: {names}; {_conversion(shards)}")
    return notes


def _fault(folder: ModelFolder) -> str:
    if folder.weights is not None:
        return f"{folder.fault}"
    return f"{folder.fault} (it holds {_some(sorted(folder.sizes))})"


def _conversion(shards: Sequence[ModelFolder]) -> str:
    """verl's own command, once for each folder."""
    lines = [
        "python -m verl.model_merger merge --backend fsdp "
        f"--local_dir {shlex.quote(str(f.path))} "
        f"--target_dir {shlex.quote(str(f.path / 'huggingface'))}"
        for f in shards
    ]
    return "verl converts them:\n  " + "\n  ".join(lines)


def _nothing(
    root: Path,
    seen: Sequence[ModelFolder],
    numbered: Sequence[ModelFolder],
    pattern: str | None,
) -> str:
    """What to say when there is no checkpoint that can be read."""
    shards = [f for f in seen if has_fsdp_shards(f.sizes)]
    if shards:
        return (
            f"{root} holds checkpoints of verl in FSDP shards only, which no other tool reads; "
            f"{_conversion(shards)}"
        )
    if numbered:
        faults = "; ".join(f"{f.name}: {_fault(f)}" for f in numbered[:4])
        more = f"; and {len(numbered) - 4} more" if len(numbered) > 4 else ""
        return f"{root}: no checkpoint with whole weights; {faults}{more}"
    looked = (
        f"looked for folders that {pattern!r} finds and that hold a model"
        if pattern
        else "looked for checkpoint-N, global_step_N/actor/huggingface, global_stepN_hf and other "
        "folders with a number, with config.json and model.safetensors (or adapter_config.json and "
        "adapter_model.safetensors) in them"
    )
    if any(f.name == "." for f in seen) and len(seen) == 1:
        return (
            f"{root} holds one model and no series below it; give the folder that its checkpoints "
            f"lie in ({looked})"
        )
    models = [f.name for f in seen if f.name != "."]
    there = _some(models) if models else _some(sorted(p.name for p in root.iterdir()))
    which = "models without a step in their names" if models else "there is"
    return f"no checkpoints in {root}: {looked}; {which}: {there}"


def _some(names: Sequence[str], count: int = 8) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more if names else "nothing"


def _last_step(root: Path, taken: Sequence[Checkpoint]) -> int:
    """The last step seen, or ``max_steps`` where the trainer wrote down a later end."""
    states = [root, Path(taken[-1].reference)]
    ends = [
        configs.read_json(folder / TRAINER_STATE).get(key)
        for folder in states
        for key in ("max_steps", "global_step")
    ]
    return max([taken[-1].step, *(end for end in ends if isinstance(end, int))])


def _base(
    root: Path, config: configs.Json, first: ModelFolder, checkpoints: Sequence[Path]
) -> tuple[Base | None, list[str]]:
    """What the first checkpoint or the cards say that the run started from."""
    kind = first.weights.kind if first.weights else "model"
    labelled = [
        (f"{first.name}/{configs.config_name(kind)}", config),
        ("README.md", _front_matter(root / "README.md")),
        (f"{first.name}/README.md", _front_matter(first.path / "README.md")),
    ]
    # transformers writes down where a model was loaded from, which may be the run itself
    return propose(labelled, own=[str(path.resolve()) for path in (root, *checkpoints)])


def _front_matter(readme: Path) -> configs.Json:
    """The mapping at the head of a model card, empty where there is none."""
    from huggingface_hub import metadata_load

    if not readme.is_file():
        return {}
    try:
        return metadata_load(readme) or {}
    except ValueError:
        return {}
