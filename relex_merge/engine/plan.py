"""What a run will do, decided before a byte of weights is read.

From the recipe, mergekit's architecture definition and the headers of all checkpoints: which tensor
is made from which stored tensors, with which parameters, in which dtype. Recipes that need other
machinery of mergekit raise :class:`NeedsMergekit`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch

from relex_merge.checkpoints.files import TRAINED
from relex_merge.engine.architecture import config_errors
from relex_merge.errors import RelexError
from relex_merge.recipe.load import Recipe
from relex_merge.recipe.variant import Variant
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters
from relex_merge.weights.source import EXTRAPOLATED, Source, TensorInfo

if TYPE_CHECKING:
    from mergekit.architecture import ModelArchitecture, WeightInfo
    from mergekit.options import MergeOptions


class NeedsMergekit(Exception):  # noqa: N818  # a way to go on, not an error
    """The recipe asks for what only mergekit's own path does; the message says what."""


@dataclass(frozen=True)
class TensorPlan:
    """One output tensor.

    stored: its name in the base and in each checkpoint (T + 1); work: the dtype of mergekit's
    rules in which inputs count and the result is first rounded; out: dtype and shape in the file;
    parameters: one for each target, None for integer buffers, which are copied when all agree.
    """

    name: str
    stored: tuple[str, ...]
    work: torch.dtype
    out: TensorInfo
    parameters: tuple[Parameters, ...] | None


@dataclass(frozen=True)
class ModelPlan:
    """All output tensors in the model's order; sources and steps in the order of the steps.

    sources: base first, then T checkpoints; steps: (T,) ascending; targets: how many target steps;
    last: index of the last checkpoint that is observed; those behind it are held out.
    deltas: whether Σ_t w_t δ_t is written, without the base.
    """

    sources: tuple[Source, ...]
    steps: Array
    targets: int
    tensors: tuple[TensorPlan, ...]
    last: int = -1
    deltas: bool = False

    @property
    def T(self) -> int:  # noqa: N802  # the paper's letter
        """Number of checkpoints."""
        return len(self.steps)

    def row_bytes(self, tensor: TensorPlan) -> int:
        """Bytes of the widest row of a tensor: of its storage in the base or a checkpoint."""
        return max(s.tensors[n].nbytes for s, n in zip(self.sources, tensor.stored, strict=True))

    def stored_bytes(self, index: int) -> int:
        """Bytes of a tensor in all files together."""
        names = self.tensors[index].stored
        return sum(s.tensors[n].nbytes for s, n in zip(self.sources, names, strict=True))


def refuse_other_machinery(recipe: Recipe, options: MergeOptions) -> None:
    """Raise NeedsMergekit when the recipe or the options name something the engine does not do."""
    config = recipe.config
    wants = {
        "slices": config.slices,
        "modules": config.modules,
        "tokenizer": config.tokenizer,
        "tokenizer_source": config.tokenizer_source,
        "chat_template": config.chat_template,
        "a base with an adapter": bool(config.base_model and config.base_model.lora),
        "--unsafe-truncate-embeddings": options.unsafe_truncate_embeddings,
        "--no-safe-serialization": not options.safe_serialization,
        "--multi-gpu": options.multi_gpu,
    }
    for name, wanted in wants.items():
        if wanted:
            raise NeedsMergekit(name)


def make_plan(
    recipe: Recipe,
    variants: Sequence[Variant],
    sources: Sequence[Source],
    steps: Array,
    architecture: ModelArchitecture,
    config: Any,
    *,
    observed: Array | None = None,
) -> ModelPlan:
    """The plan of a recipe over opened sources (base first, then the order of ``steps``).

    variants: what is made; what one leaves to the recipe keeps its filters; observed: the steps
    that enter the fit, by default all. Raises RelexError naming tensor and checkpoint, or
    NeedsMergekit.
    """
    tensors = []
    settings = Settings(recipe, variants, steps if observed is None else observed)
    for weight, t in _weights(architecture, config, sources[0].label):
        stored = _stored_names(weight, sources, config)
        if stored is not None:
            infos = [s.tensors[n] for s, n in zip(sources, stored, strict=True)]
            _check_shapes(weight, infos, sources)
            tensors.append(_plan_tensor(weight, stored, infos, settings, t, sources))
    last = -1 if observed is None else len(observed) - 1
    return ModelPlan(tuple(sources), steps, len(variants), tuple(tensors), last)


def _weights(
    architecture: ModelArchitecture, config: Any, label: str
) -> Iterator[tuple[WeightInfo, float]]:
    """Yield every weight in mergekit's order, and the position t in [0, 1] for its gradients.

    Args:
        architecture: mergekit's.
        config: the base's configuration.
        label: names the base in messages.

    Raises:
        RelexError: the configuration does not say what the architecture needs.
    """
    from mergekit.architecture import ConfiguredModuleArchitecture

    with config_errors(label):
        for definition in architecture.modules.values():
            module = ConfiguredModuleArchitecture(
                info=definition.architecture, config=config, weight_prefix=definition.weight_prefix
            )
            layers = module.num_layers()
            for weight in module.pre_weights():
                yield weight, 0.0
            for index in range(layers):
                for weight in module.layer_weights(index):
                    yield weight, index / (layers - 1) if layers > 1 else 1.0
            for weight in module.post_weights():
                yield weight, 0.0


def _stored_names(
    weight: WeightInfo, sources: Sequence[Source], config: Any
) -> tuple[str, ...] | None:
    """The weight's name in each source, by mergekit's rules of aliases and ties; None: skip it."""
    own = [weight.name, *(weight.aliases or ())]
    names = [*own, *(weight.tied_names or ())]
    # As in mergekit, a weight that is only there as its tie (lm_head) is not written.
    if weight.optional and not any(name in s.tensors for s in sources for name in own):
        return None
    untied = _is_untied_head(weight, config) and any(n in s.tensors for s in sources for n in own)
    if untied:
        names = own  # mergekit would take the embeddings for a head that was left out
    found = [next((name for name in names if name in s.tensors), None) for s in sources]
    if None not in found:
        return tuple(name for name in found if name is not None)
    missing = sources[found.index(None)]
    if weight.optional and not untied:
        raise NeedsMergekit(f"{weight.name}, which only some of the checkpoints have")
    from mergekit.architecture.conversion import can_convert_checkpoint_keys

    if can_convert_checkpoint_keys(config.model_type, set(missing.tensors), weight.name):
        raise NeedsMergekit(f"{weight.name}, which the checkpoints store in another layout")
    raise RelexError(
        f"{missing.label} has no tensor {weight.name}, which the base's architecture requires; "
        "leave that checkpoint out or fetch it again"
    )


def _is_untied_head(weight: WeightInfo, config: Any) -> bool:
    """Whether mergekit knows embeddings as this weight's tie and the model says it has none."""
    tied = getattr(config, "tie_word_embeddings", None) is not False
    return bool(weight.tied_names) and "embed" not in weight.name and not tied


def _check_shapes(
    weight: WeightInfo, infos: Sequence[TensorInfo], sources: Sequence[Source]
) -> None:
    mixed = any(info.dtype.is_floating_point for info in infos)
    for info, source in zip(infos, sources, strict=True):
        if mixed and not info.dtype.is_floating_point:
            raise RelexError(
                f"{source.label}: {weight.name} is {info.dtype}, as packed and quantized weights "
                f"are; {TRAINED}"
            )
        if info.shape == infos[0].shape:
            continue
        remedy = (
            "align the vocabularies with mergekit's tokenizer options (for example tokenizer: "
            "{source: base})"
            if weight.vocabulary_axis is not None
            else "is the base the model that this run started from?"
        )
        raise RelexError(
            f"{weight.name} is {list(info.shape)} in {source.label} but {list(infos[0].shape)} in "
            f"the base {sources[0].label}; {remedy}"
        )


def _plan_tensor(
    weight: WeightInfo,
    stored: tuple[str, ...],
    infos: Sequence[TensorInfo],
    settings: Settings,
    t: float,
    sources: Sequence[Source],
) -> TensorPlan:
    from mergekit.common import dtype_from_name

    for info, source in zip(infos, sources, strict=True):
        if info.dtype.is_floating_point and info.dtype not in EXTRAPOLATED:
            raise RelexError(
                f"{source.label}: {weight.name} is {info.dtype}, a quantized format; {TRAINED}"
            )
    if not all(info.dtype.is_floating_point for info in infos):
        return TensorPlan(weight.name, stored, infos[0].dtype, infos[0], None)
    config = settings.recipe.config
    stored_as = [info.dtype for info, s in zip(infos, sources, strict=True) if not s.computed]
    work = dtype_from_name(weight.force_dtype or config.dtype) or _widest(stored_as)
    out = dtype_from_name(weight.force_dtype or config.out_dtype) or work
    if len(stored_as) < len(infos):  # an adapter's delta would not survive rounding to bfloat16
        work = _widest([info.dtype for info in infos])
    shape = infos[0].shape
    return TensorPlan(
        weight.name, stored, work, TensorInfo(out, shape), settings.parameters(weight.name, t)
    )


def _widest(dtypes: Sequence[torch.dtype]) -> torch.dtype:
    return reduce(torch.promote_types, dtypes)


class Settings:
    """The method's shared parameters, resolved per tensor by mergekit's rules."""

    def __init__(self, recipe: Recipe, variants: Sequence[Variant], steps: Array) -> None:
        self.recipe = recipe
        self._variants = variants
        self._steps = steps
        self._checked: dict[tuple[Any, ...], Parameters] = {}

    def parameters(self, tensor: str, t: float) -> tuple[Parameters, ...]:
        """One for each target. Raises RelexError when a parameter does not fit the series."""
        from mergekit import merge_methods
        from mergekit.parameter_resolver import resolve_parameter
        from pydantic import ValidationError

        spec = merge_methods.get(self.recipe.config.merge_method).spec
        given = self.recipe.config.parameters or {}
        values: dict[str, Any] = {}
        for parameter in spec.shared_parameters:
            try:
                values[parameter.name] = resolve_parameter(
                    parameter, (given,), tensor_name=tensor, t=t
                )
            except ValidationError as error:
                raise RelexError(
                    f"{self.recipe.name}: {parameter.name} for {tensor}: {error.errors()[0]['msg']}"
                ) from error
            except RuntimeError as error:
                raise RelexError(
                    f"{self.recipe.name}: no {parameter.name} for {tensor}; its filters leave this "
                    "tensor out: end the list with an entry that has no filter"
                ) from error
        return tuple(self._checked_parameters(variant, values) for variant in self._variants)

    def _checked_parameters(self, variant: Variant, values: dict[str, Any]) -> Parameters:
        if variant.target_step is not None:
            values = {**values, "target_step": variant.target_step}
        if variant.scale is not None:
            values = {**values, "scale": variant.scale}
        key = tuple(sorted(values.items()))
        if key not in self._checked:
            if values["target_step"] == "auto":
                values = {**values, "target_step": float(self._steps[-1]), "auto_target": True}
            parameters = Parameters(**values)
            parameters.check(self._steps)
            self._checked[key] = parameters
        return self._checked[key]
