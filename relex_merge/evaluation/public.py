"""The Python face of an evaluation: arguments in, results out; :mod:`relex_merge.api` shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from relex_merge.engine.plan import NeedsMergekit
from relex_merge.errors import RelexError
from relex_merge.evaluation.backends import BackendRequest, parse_arguments
from relex_merge.evaluation.destinations import Destinations
from relex_merge.evaluation.lm_eval_call import TaskSettings
from relex_merge.evaluation.outputs import Output, read_outputs
from relex_merge.evaluation.request import STORE, EvaluationRequest, TaskRequest
from relex_merge.evaluation.sampling import Sampling
from relex_merge.hub.download import progress_bars as hub_bars
from relex_merge.pipeline.options import Notify, keep_silent
from relex_merge.recipe.load import Recipe, RecipeSource, load_recipe

if TYPE_CHECKING:
    from mergekit.options import MergeOptions

    from relex_merge.report.evaluation import Evaluation

MAX_NEW_TOKENS = 64  # of a response, where the model has room for as many
Evaluated: TypeAlias = Recipe | list[Output]


def evaluate(  # noqa: PLR0913  # a public function: each option is a keyword of its own
    recipe: RecipeSource | Sequence[str | Path],
    *,
    prompts: str | Path | None = None,
    text: str | Path | None = None,
    samples: int = 1,
    max_new_tokens: int | None = None,
    seed: int = 0,
    describe: bool = False,
    tasks: Sequence[str] = (),
    include_path: str | Path | None = None,
    limit: float | None = None,
    model: str = "hf",
    model_args: str | Mapping[str, Any] | None = None,
    gen_kwargs: str | Mapping[str, Any] | None = None,
    num_fewshot: int | None = None,
    repeats: int = 1,
    apply_chat_template: bool = False,
    fewshot_as_multiturn: bool = True,
    system_instruction: str | None = None,
    confirm_run_unsafe_code: bool = False,
    store: str | Path = STORE,
    targets: Sequence[float] = (),
    scales: Sequence[float] = (),
    anchors: Sequence[str] = (),
    also: Sequence[str] = (),
    every: int | None = None,
    batch_size: int = 16,
    options: MergeOptions | None = None,
    memory_budget: int | None = None,
    stream: bool | None = None,
    quiet: bool = False,
    notify: Notify = keep_silent,
    json: str | Path | None = None,
    choose: str | Path | None = None,
    plot: str | Path | None = None,
) -> Evaluation:
    """Measure what the candidates of a recipe, or finished outputs, can do: on text and on tasks.

    Args:
        recipe: as for :func:`relex_merge.extrapolate`; or the folder of a finished output, of
            several (``step-N`` in it), or a list of such folders, all of one series. Outputs are
            the candidates then, as they lie on the disk, and the verdict is about the first.
        prompts: a file of prompts, answered by the last observed checkpoint.
        text: a file of finished text, in place of prompts.
        samples: responses to each prompt.
        max_new_tokens: of a response; by default 64, or fewer where the model has no room.
        seed: of sampling.
        describe: whether candidates answer the prompts too, to be described.
        tasks: names that lm-eval knows.
        include_path: a folder with more task files.
        limit: only the first questions of each task, or a share below 1.
        model: the backend of lm-eval: "hf", or "vllm", for which candidates are written.
        model_args: of the backend, as lm-eval has them ("max_model_len=4096").
        gen_kwargs: of decoding, in place of the task's own ("do_sample=true,temperature=0.6").
        num_fewshot: examples before each question; the task's own where None.
        repeats: k of mean@k, for sampled answers.
        apply_chat_template: whether questions are asked as a chat.
        fewshot_as_multiturn: whether the examples are earlier turns of that chat.
        system_instruction: of that chat.
        confirm_run_unsafe_code: whether tasks may run code that the models write.
        store: a folder of finished measurements, none of which is made twice.
        targets: target steps of the candidates; the recipe's own where empty.
        scales: λ of the candidates; 0.1, 0.3, 0.5 and 1 where empty.
        anchors: "line", "last" or "average"; "last", and the plain line, where empty.
        also: references of other models, such as the real end of the run.
        every: also every observed checkpoint whose step is a multiple of this.
        batch_size: sequences in a forward pass.
        options: mergekit's options.
        memory_budget: bytes that the engine may allocate.
        stream: whether weights on the Hub are read in ranges.
        quiet: no progress bar.
        notify: called with remarks for the user.
        json: a file for the whole evaluation.
        choose: a file for the recipe that won; its evaluation is written beside it.
        plot: a figure of KL and scores against the target step.

    Raises:
        RelexError: whatever is wrong, with the remedy.
    """
    request = make_request(
        prompts=prompts,
        text=text,
        samples=samples,
        max_new_tokens=max_new_tokens,
        seed=seed,
        describe=describe,
        tasks=tasks,
        include_path=include_path,
        limit=limit,
        model=model,
        model_args=model_args,
        gen_kwargs=gen_kwargs,
        num_fewshot=num_fewshot,
        repeats=repeats,
        apply_chat_template=apply_chat_template,
        fewshot_as_multiturn=fewshot_as_multiturn,
        system_instruction=system_instruction,
        confirm_run_unsafe_code=confirm_run_unsafe_code,
        store=store,
        targets=targets,
        scales=scales,
        anchors=anchors,
        also=also,
        every=every,
        batch_size=batch_size,
        options=options,
        memory_budget=memory_budget,
        stream=stream,
        quiet=quiet,
        notify=notify,
    )
    places = Destinations(_path(json), _path(choose), _path(plot))
    places.check()
    evaluated = open_sources(recipe)
    found = run_request(evaluated, request)
    places.write(found, evaluated, notify)
    return found


def make_request(  # noqa: PLR0913  # the arguments of evaluate, but for what it writes
    *,
    prompts: str | Path | None,
    text: str | Path | None,
    samples: int,
    max_new_tokens: int | None,
    seed: int,
    describe: bool,
    tasks: Sequence[str],
    include_path: str | Path | None,
    limit: float | None,
    model: str,
    model_args: str | Mapping[str, Any] | None,
    gen_kwargs: str | Mapping[str, Any] | None,
    num_fewshot: int | None,
    repeats: int,
    apply_chat_template: bool,
    fewshot_as_multiturn: bool,
    system_instruction: str | None,
    confirm_run_unsafe_code: bool,
    store: str | Path,
    targets: Sequence[float],
    scales: Sequence[float],
    anchors: Sequence[str],
    also: Sequence[str],
    every: int | None,
    batch_size: int,
    options: MergeOptions | None,
    memory_budget: int | None,
    stream: bool | None,
    quiet: bool,
    notify: Notify,
) -> EvaluationRequest:
    """Return the arguments of :func:`evaluate` made concrete.

    Raises:
        RelexError: one of them is out of its range, or two do not go together.
    """
    if prompts is not None and text is not None:
        raise RelexError("prompts and text are two sources of text; give one of them")
    settings = TaskSettings(
        num_fewshot=num_fewshot,
        gen_kwargs=_arguments(gen_kwargs, "--gen-kwargs"),
        apply_chat_template=apply_chat_template,
        fewshot_as_multiturn=fewshot_as_multiturn,
        system_instruction=system_instruction,
        repeats=repeats,
        batch_size=batch_size,
        confirm_run_unsafe_code=confirm_run_unsafe_code,
    )
    asked = TaskRequest(
        names=tuple(tasks), include_path=_path(include_path), limit=limit, settings=settings
    )
    return EvaluationRequest(
        merge=options or _default_options(),
        targets=tuple(targets),
        scales=tuple(scales),
        anchors=tuple(anchors),
        prompts=_path(prompts),
        text=_path(text),
        sampling=Sampling(
            samples=samples, max_new_tokens=max_new_tokens or MAX_NEW_TOKENS, seed=seed
        ),
        shorten=max_new_tokens is None,
        describe=describe,
        tasks=asked if tasks else None,
        backend=BackendRequest(model, _arguments(model_args, "--model-args")),
        also=tuple(also),
        every=every,
        batch_size=batch_size,
        store=Path(store),
        memory_budget=memory_budget,
        stream=stream,
        quiet=quiet,
        notify=notify,
    )


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


def _arguments(given: str | Mapping[str, Any] | None, option: str) -> Mapping[str, Any]:
    return parse_arguments(given, option) if isinstance(given, str) else given or {}


def _default_options() -> MergeOptions:
    from mergekit.options import MergeOptions

    return MergeOptions()


def open_sources(source: RecipeSource | Sequence[str | Path]) -> Evaluated:
    """Read a recipe, or finished outputs.

    Args:
        source: as for :func:`evaluate`.

    Raises:
        RelexError: it is neither, or outputs are of different series.
    """
    listed = [source] if isinstance(source, (str, Path, Mapping, Recipe)) else list(source)
    folders = [Path(s) for s in listed if isinstance(s, (str, Path)) and Path(s).is_dir()]
    if listed and len(folders) == len(listed):
        return read_outputs(folders)
    if len(listed) != 1:
        named = ", ".join(str(s) for s in listed) or "nothing"
        raise RelexError(f"give one recipe, or one or several finished outputs; not {named}")
    recipe = load_recipe(listed[0])
    if not recipe.is_relex:
        raise RelexError(f"evaluate is for merge_method: relex; {recipe.name} uses another one")
    return recipe


def run_request(evaluated: Evaluated, request: EvaluationRequest) -> Evaluation:
    """Measure what was asked for.

    Raises:
        RelexError: whatever is wrong, with the remedy.
    """
    from relex_merge.evaluation.evaluate import evaluate_outputs, evaluate_recipe

    with hub_bars(not request.quiet):
        if not isinstance(evaluated, Recipe):
            return evaluate_outputs(evaluated, request)
        try:
            return evaluate_recipe(evaluated, request)
        except NeedsMergekit as reason:
            raise plain_series_only(evaluated, reason) from reason


def forecast_request(evaluated: Evaluated, request: EvaluationRequest) -> str:
    """Return what :func:`run_request` would read, hold, compute and write; no weights are read.

    Raises:
        RelexError: as the evaluation itself would before it reads weights.
    """
    from relex_merge.evaluation.forecast import forecast_outputs, forecast_recipe

    with hub_bars(not request.quiet):
        if not isinstance(evaluated, Recipe):
            return forecast_outputs(evaluated, request)
        try:
            return forecast_recipe(evaluated, request)
        except NeedsMergekit as reason:
            raise plain_series_only(evaluated, reason) from reason


def plain_series_only(recipe: Recipe, reason: NeedsMergekit) -> RelexError:
    """Return the error of a recipe that only mergekit's own path can run."""
    return RelexError(
        f"{recipe.name} uses {reason}; evaluate reads plain series: a recipe with models: and a "
        "base of the same vocabulary. Run the recipe and evaluate its output"
    )
