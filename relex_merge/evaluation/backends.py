"""What runs a model for lm-evaluation-harness: transformers in this process, or vLLM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from relex_merge.errors import RelexError
from relex_merge.evaluation.tasks import PIP, VLLM_PIP, require


def parse_arguments(text: str) -> dict[str, Any]:
    """Read ``key=value,key=value`` as lm-eval reads ``--model-args`` and ``--gen-kwargs``.

    Raises:
        RelexError: the text is not of that form, or lm-eval is not installed.
    """
    require("lm_eval", "--tasks needs lm-evaluation-harness", PIP)
    from lm_eval.utils import simple_parse_args_string

    if any("=" not in part for part in text.split(",") if part):
        raise RelexError(f"{text!r} is not of the form key=value,key=value")
    return dict(simple_parse_args_string(text))


class Backend(Protocol):
    """What runs a model for lm-eval."""

    def open(self, batch_size: int) -> Any:
        """Return lm-eval's ``LM``."""


@dataclass(frozen=True)
class HfBackend:
    """A transformers model that sits in memory (lm-eval's ``hf``)."""

    model: Any
    tokenizer: Any

    def open(self, batch_size: int) -> Any:
        """Wrap the model; nothing is copied."""
        from lm_eval.models.huggingface import HFLM

        return HFLM(pretrained=self.model, tokenizer=self.tokenizer, batch_size=batch_size)


class VllmBackend:
    """A model folder that vLLM loads (lm-eval's ``vllm``).

    args: lm-eval's ``--model-args`` without ``pretrained``: ``dtype=bfloat16,max_model_len=4096``.
    """

    def __init__(self, pretrained: str, args: str = "") -> None:
        self._args = parse_arguments(args)
        if "pretrained" in self._args:
            raise RelexError(
                "--model-args names `pretrained`; leave it out: the recipe says which models are "
                "measured"
            )
        require("vllm", "--model vllm needs vLLM", VLLM_PIP)
        self._args["pretrained"] = pretrained
        self._lm: Any = None

    def open(self, batch_size: int) -> Any:
        """Load the model, once; vLLM sizes its batches itself."""
        from lm_eval.api.registry import get_model

        if self._lm is None:
            self._lm = get_model("vllm").create_from_arg_obj(self._args, {"batch_size": "auto"})
        return self._lm


@dataclass(frozen=True)
class Subject:
    """A model to be measured.

    name: what people call it. identity: what it is, tokenizer included, by commit or content;
    measurements are kept under it. kind: of the backend, in lm-eval's words: hf, vllm. load: gives
    the backend, called only when something is to be measured.
    """

    name: str
    identity: str
    kind: str
    load: Callable[[], Backend]
