"""What runs a model for lm-evaluation-harness: transformers in this process, or vLLM."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from relex_merge.errors import RelexError
from relex_merge.evaluation.tasks import require

KINDS = ("hf", "vllm")
# Arguments of lm-eval's hf that say which model is loaded, and how; here it sits in memory already.
_OF_LOADING = {
    *("backend", "revision", "subfolder", "device", "dtype", "trust_remote_code", "parallelize"),
    *("use_fast_tokenizer", "max_memory_per_gpu", "max_cpu_memory", "offload_folder", "tp_plan"),
    *("peft", "delta", "autogptq", "gptqmodel", "gguf_file", "batch_size", "max_batch_size"),
}


def parse_arguments(text: str, option: str = "--model-args") -> dict[str, Any]:
    """Read ``key=value,key=value`` as lm-eval reads ``--model_args`` and ``--gen_kwargs``.

    Raises:
        RelexError: the text is not of that form, or lm-eval is not installed.
    """
    require("lm_eval", f"{option} needs lm-evaluation-harness", "eval")
    from lm_eval.utils import simple_parse_args_string

    if any("=" not in part for part in text.split(",") if part):
        raise RelexError(f"{option} {text!r} is not of the form key=value,key=value")
    return dict(simple_parse_args_string(text))


@dataclass(frozen=True)
class BackendRequest:
    """Which backend of lm-eval runs the models.

    kind: hf or vllm. args: lm-eval's ``--model_args``, without what names the model.
    """

    kind: str = "hf"
    args: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Check what can be told before a model is loaded.

        Raises:
            RelexError: the backend is unknown or not installed, or an argument is not for it.
        """
        if self.kind not in KINDS:
            raise RelexError(f"--model {self.kind}: it can be {' or '.join(KINDS)}")
        for name in ("pretrained", "tokenizer"):
            if name in self.args:
                raise RelexError(
                    f"--model-args names `{name}`; leave it out: the recipe says which models are "
                    "measured"
                )
        if self.kind == "vllm":
            require("vllm", "--model vllm needs vLLM", "vllm")
            return
        require("lm_eval", "--model hf needs lm-evaluation-harness", "eval")
        if self.args:
            _check_hf(self.args)


def _check_hf(args: Mapping[str, Any]) -> None:
    from lm_eval.models.huggingface import HFLM

    known = {*inspect.signature(HFLM.__init__).parameters} - {"self", "kwargs"}
    taken = sorted(known - _OF_LOADING - {"pretrained", "tokenizer"})
    for name in args:
        if name not in taken:
            why = "says how a model is loaded" if name in known else "is not known to lm-eval"
            raise RelexError(
                f"--model-args {name} {why}; with --model hf the models sit in memory already, in "
                f"float32 (--device, --trust-remote-code and --batch-size have options of their "
                f"own), and it can be {', '.join(taken)}"
            )


class Backend(Protocol):
    """What runs a model for lm-eval."""

    def open(self, batch_size: int) -> Any:
        """Return lm-eval's ``LM``."""


@dataclass(frozen=True)
class HfBackend:
    """A transformers model that sits in memory (lm-eval's ``hf``)."""

    model: Any
    tokenizer: Any
    args: Mapping[str, Any] = field(default_factory=dict)

    def open(self, batch_size: int) -> Any:
        """Wrap the model; nothing is copied."""
        from lm_eval.models.huggingface import HFLM

        return HFLM(
            pretrained=self.model, tokenizer=self.tokenizer, batch_size=batch_size, **self.args
        )


class VllmBackend:
    """A model folder that vLLM loads (lm-eval's ``vllm``).

    Args:
        pretrained: the folder.
        args: lm-eval's ``--model_args`` without ``pretrained``, such as ``max_model_len``.
    """

    def __init__(self, pretrained: str, args: Mapping[str, Any]) -> None:
        self.args = {**args, "pretrained": pretrained}
        self._lm: Any = None

    def open(self, batch_size: int) -> Any:
        """Load the model, once; vLLM sizes its batches itself."""
        from lm_eval.api.registry import get_model

        if self._lm is None:
            self._lm = get_model("vllm").create_from_arg_obj(self.args, {"batch_size": "auto"})
        return self._lm

    def close(self) -> None:
        """Give the model's memory back: only one model fits on most GPUs."""
        self._lm = None
        gc.collect()


@dataclass(frozen=True)
class Subject:
    """A model to be measured.

    name: what people call it. identity: what it is, tokenizer included, by commit or content;
    measurements are kept under it. kind: of the backend, in lm-eval's words: hf, vllm. load: gives
    the backend, called only when something is to be measured. args: the backend's own.
    """

    name: str
    identity: str
    kind: str
    load: Callable[[], Backend]
    args: Mapping[str, Any] = field(default_factory=dict)
