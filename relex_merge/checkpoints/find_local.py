"""Checkpoints below a local folder, as the trainers leave them.

transformers, TRL and open-r1 write ``checkpoint-50``, verl ``global_step_50/actor/huggingface``,
OpenRLHF ``global_step50_hf``; any other folder with a number and a model in it is taken too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from relex_merge.checkpoints.base_model import or_step_zero, propose
from relex_merge.checkpoints.complete import check_weights
from relex_merge.checkpoints.configs import (
    check_same_model,
    check_unquantized,
    config_name,
    identity,
    read_config,
)
from relex_merge.checkpoints.files import (
    ADAPTER_CONFIG,
    CONFIG,
    SERIES_FOLDER,
    SERIES_RECIPE,
    TRAINER_STATE,
    NotWholeError,
    Weights,
    find_weights,
    is_beside,
    is_model_folder,
    weights_among,
)
from relex_merge.checkpoints.foreign import (
    CKPT_CONTENTS,
    foreign_checkpoint,
    is_unfinished_megatron,
)
from relex_merge.checkpoints.grouping import Candidate, choose, deleted, grouped
from relex_merge.checkpoints.json_files import Json, peek_json
from relex_merge.checkpoints.locate import local_folder
from relex_merge.checkpoints.notes import (
    LeftOut,
    left_out,
    nothing_found,
    packed_series,
    without_weights,
)
from relex_merge.checkpoints.series import (
    Base,
    Checkpoint,
    NothingFoundError,
    Series,
    end_of_run,
)
from relex_merge.checkpoints.sharded import (
    COMPANIONS,
    LORA_FOLDER,
    Sharded,
    find_sharded,
    is_sharded,
)
from relex_merge.checkpoints.steps import Named, compile_pattern, read_by, read_name
from relex_merge.errors import RelexError
from relex_merge.formatting import some

_OURS = (SERIES_RECIPE, f"{SERIES_FOLDER}/{SERIES_RECIPE}")  # what TrajectoryCallback wrote
COPIES = {COMPANIONS, LORA_FOLDER}  # in which shards may lie once more, as a whole
_DEEPEST = 6  # folders, as in checkpoints/project/run/global_step_1/actor/huggingface


@dataclass(frozen=True)
class ModelFolder:
    """A folder that holds a model, or should.

    Attributes:
        path: where it is.
        name: relative to the folder searched, POSIX.
        sizes: file → bytes.
        weights: the files that hold the weights, None without any.
        config: what its configuration says, empty without one.
        dtype: of most of its numbers.
        changed: when its weights were last written, in seconds since 1970.
        size: bytes of its weights.
        fault: why it cannot be read, None when it is whole.
        sharded: the shards that the weights are in, None for weights as a whole.
    """

    path: Path
    name: str
    sizes: Mapping[str, int]
    weights: Weights | None = None
    config: Json = field(default_factory=dict)
    dtype: str | None = None
    changed: float = 0.0
    size: int = 0
    fault: str | None = None
    sharded: Sharded | None = None

    @property
    def files(self) -> list[Path]:
        """The files with the weights."""
        if self.sharded is not None:
            return [self.sharded.folder / file for file in self.sharded.files]
        return [self.path / file for file in self.weights.files] if self.weights else []

    def left_out(self) -> LeftOut:
        """Return the folder as one that cannot be read."""
        why = self.fault or without_weights(self.sizes)
        return LeftOut(self.name, str(self.path), tuple(self.sizes), why)


def find_local(folder: str | Path, pattern: str | None = None) -> Series:
    """Find the series below a folder.

    Checkpoints without whole weights are left out and noted.

    Args:
        folder: where a trainer leaves its checkpoints.
        pattern: a regular expression on the path relative to ``folder``, whose first group is the
            step; only folders that it finds count.

    Raises:
        NothingFoundError: there is none; the message says what was looked for and what is there.
        RelexError: the pattern is not usable, or the checkpoints are of different models.
    """
    compiled = compile_pattern(pattern)
    found = local_folder(str(folder))
    if found is None:
        raise NothingFoundError(f"{folder} is not a folder")
    root = found.absolute()  # a symbolic link may be there for its name
    seen = list(_model_folders(root, everything=pattern is not None))
    named = [(f, read_by(compiled, f.name)) for f in seen if f.name != "."]
    numbered = [(f, n) for f, n in named if n is not None]
    whole = [_candidate(f, n) for f, n in numbered if f.fault is None]
    if not whole:
        raise NothingFoundError(_nothing(root, seen, [f for f, _ in numbered], pattern))
    choice = choose(grouped(whole, by_pattern=pattern is not None), by_pattern=pattern is not None)
    taken = choice.group.checkpoints
    check_nameable(taken)
    folders = {str(f.path): f for f, _ in numbered}
    check_same_model(
        [(c.reference, identity(folders[c.reference].config, c.kind)) for c in taken],
        "put each run into a folder of its own, or choose one with --pattern",
    )
    base, remarks = _base(root, folders[taken[0].reference], [f.path for f, _ in numbered])
    steps = {c.step for c in taken}
    faulty = [f.left_out() for f, n in numbered if f.fault and n.step not in steps]
    states = [peek_json(place / TRAINER_STATE) for place in (root, Path(taken[-1].reference))]
    return Series(
        str(root),
        choice.group.layout,
        taken,
        or_step_zero(base, taken),
        end_of_run(taken[-1].step, states),
        (*choice.notes, *deleted(choice.group), *left_out(faulty), *remarks),
    )


# the folders


def _model_folders(root: Path, *, everything: bool) -> Iterator[ModelFolder]:
    """Yield every model folder below ``root`` and ``root`` itself, in the order of the names.

    everything: also what trainers keep beside the policy, such as a critic.
    """
    waiting: list[tuple[Path, tuple[Path, ...]]] = [(root, ())]
    while waiting:
        path, above = waiting.pop()
        real, depth = path.resolve(), len(above)
        if real in above:  # a symbolic link in a circle
            continue
        sizes, below = _listing(path)
        found = None
        if is_model_folder(sizes) or is_sharded(sizes, below):
            found = _look_into(root, path, sizes, below)
            yield found
        inside = found is not None and depth and not found.fault
        if found is None and (foreign := foreign_checkpoint(path, sizes, below)):
            yield ModelFolder(path, path.relative_to(root).as_posix(), sizes, fault=foreign)
        if depth == _DEEPEST or (inside and not (found and found.sharded)):
            continue  # what lies inside a checkpoint belongs to it
        waiting += [
            (path / name, (*above, real))
            for name in sorted(below, reverse=True)
            if (everything or not is_beside(name)) and (not inside or name in COPIES)
        ]


def _listing(path: Path) -> tuple[dict[str, int], list[str]]:
    """Return file → bytes, and the names of the folders; nothing where it may not be read."""
    sizes, folders = {}, []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders.append(entry.name)
                elif entry.is_file():
                    sizes[entry.name] = entry.stat().st_size
    except OSError:
        return {}, []
    return sizes, folders


def _look_into(
    root: Path, path: Path, sizes: Mapping[str, int], below: Sequence[str]
) -> ModelFolder:
    """Return a model folder with its weights checked as far as their headers go."""
    name, weights = path.relative_to(root).as_posix(), None
    try:
        if is_unfinished_megatron(path):
            fault = f"verl has not written {CKPT_CONTENTS}, which it writes last, yet"
            return ModelFolder(path, name, sizes, fault=fault)
        if weights_among(sizes) is None and is_sharded(sizes, below):
            return _look_into_shards(path, name, sizes)
        weights = find_weights(sizes, path)
        if weights is None:
            return ModelFolder(path, name, sizes, fault=without_weights(sizes))
        dtype = check_weights(path, weights)
        file = config_name(weights.kind)
        config = read_config(path / file, file)
        check_unquantized(config, "it")
        changed, size = _written([path / file for file in weights.files])
    except (NotWholeError, RelexError) as error:
        return ModelFolder(path, name, sizes, weights, fault=str(error))
    except FileNotFoundError as error:  # a trainer renames what it has written, or removes it
        fault = f"{Path(error.filename).name} was moved or removed meanwhile"
        return ModelFolder(path, name, sizes, weights, fault=fault)
    return ModelFolder(path, name, sizes, weights, config, dtype, changed, size)


def _written(files: Sequence[Path]) -> tuple[float, int]:
    """Return when the last of some files was written, and the bytes of all. Raises OSError."""
    stats = [file.stat() for file in files]
    return max(stat.st_mtime for stat in stats), sum(stat.st_size for stat in stats)


def config_of_shards(found: Sharded) -> Json:
    """Return the configuration of a model or adapter in shards, empty without one."""
    if found.kind == "adapter" and found.adapter_folder is not None:
        return read_config(found.adapter_folder / ADAPTER_CONFIG)
    return read_config(found.companions / CONFIG)


def _look_into_shards(path: Path, name: str, sizes: Mapping[str, int]) -> ModelFolder:
    """Return a folder with shards of a model. Raises NotWholeError when they are not whole."""
    found = find_sharded(path)
    assert found is not None  # the names say so
    found.check()
    config = config_of_shards(found)
    weights = Weights(found.kind, found.files)
    changed, size = _written([found.folder / file for file in found.files])
    return ModelFolder(
        path, name, sizes, weights, config, found.dtype, changed, size, sharded=found
    )


# the series


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
    checkpoint = Checkpoint(
        named.step,
        str(folder.path),
        folder.sharded.layout if folder.sharded else layout_of(named),
        size=folder.size,
        dtype=folder.dtype,
        date=datetime.fromtimestamp(int(folder.changed), timezone.utc).isoformat(),
        kind=folder.weights.kind,
    )
    return Candidate(checkpoint, named.shape, named.family, named.guessed)


def layout_of(named: Named) -> str:
    """Return which trainer names its folders so."""
    plain = read_name(named.name)
    shape = plain.shape if plain else named.shape
    if "global_step_{step}/" in shape or "global_steps_{step}/" in shape:
        return "verl"
    if "global_step{step}_hf" in shape:
        return "openrlhf"
    if shape.rpartition("/")[2] == "checkpoint-{step}":
        return "transformers"
    return "plain"


def _nothing(
    root: Path,
    seen: Sequence[ModelFolder],
    numbered: Sequence[ModelFolder],
    pattern: str | None,
) -> str:
    """Say why there is no checkpoint that can be read."""
    looked = (
        f"looked for folders that {pattern!r} finds and that hold a model"
        if pattern
        else "looked for checkpoint-N, global_step_N/actor, global_stepN_hf and other folders "
        "with a number, with config.json and model.safetensors, adapter_config.json and "
        "adapter_model.safetensors, or the shards of FSDP or torch.distributed.checkpoint in them"
    )
    if not numbered and (packed := packed_series(str(root), [n for f in seen for n in f.sizes])):
        return packed
    if not numbered and [f.name for f in seen] == ["."]:
        return (
            f"{root} holds one model and no series below it; give the folder that its checkpoints "
            f"lie in ({looked})"
        )
    models = [f.name for f in seen if f.name != "."]
    which = "models without a step in their names" if models else "there is"
    there = some(models or sorted(path.name for path in root.iterdir()))
    return nothing_found(
        str(root),
        [folder.left_out() for folder in numbered],
        f"{looked}; {which}: {there}",
    )


def _base(
    root: Path, first: ModelFolder, checkpoints: Sequence[Path]
) -> tuple[Base | None, list[str]]:
    """Return what the first checkpoint or the cards say that the run started from."""
    kind = first.weights.kind if first.weights else "model"
    labelled = [
        (f"{first.name}/{config_name(kind)}", first.config),
        *((name, _yaml(root / name)) for name in _OURS),
        ("README.md", front_matter(root / "README.md")),
        (f"{first.name}/README.md", front_matter(first.path / "README.md")),
    ]
    # transformers writes down where a model was loaded from, which may be the run itself
    return propose(labelled, own=[str(path.resolve()) for path in (root, *checkpoints)])


def _yaml(path: Path) -> Json:
    """Return the mapping in a YAML file, empty where there is none."""
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def front_matter(readme: Path) -> Json:
    """Return the mapping at the head of a model card, empty where there is none."""
    import yaml
    from huggingface_hub import metadata_load

    if not readme.is_file():
        return {}
    try:
        return metadata_load(readme) or {}
    except (ValueError, yaml.YAMLError):
        return {}
