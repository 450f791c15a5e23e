"""The tiny Qwen2 and its tokenizer, as ordinary Hugging Face folders."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relex_merge.demo.settings import Pretraining
from relex_merge.errors import disk_errors

if TYPE_CHECKING:
    import torch

    from relex_merge.demo.tasks import Task

PAD, EOS = 0, 1


def build_tokenizer(task: Task) -> Any:
    """Make a tokenizer of one token a character, after ``<pad>`` = 0 and ``<eos>`` = 1."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<pad>": PAD, "<eos>": EOS}
    vocabulary |= {c: i for i, c in enumerate(sorted(set(task.alphabet)), start=2)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    )


def build_model(vocabulary: int, size: Pretraining, seed: int) -> Any:
    """Make a Qwen2ForCausalLM in float32 with random weights, in evaluation mode.

    The global random state is left as it was.

    Args:
        vocabulary: number of tokens.
        size: its sizes.
        seed: of the weights.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.mlp,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=PAD,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config).eval()


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write model and tokenizer, whole or not at all.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        folder: where to; what lies there is replaced.

    Raises:
        RelexError: it cannot be written.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    with disk_errors(folder):
        shutil.rmtree(partial, ignore_errors=True)
        with quiet_transformers():
            model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)


def load_model(folder: Path) -> Any:
    """Load the model in ``folder`` in float32, in evaluation mode."""
    from transformers import AutoModelForCausalLM

    with quiet_transformers():
        return AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()


def save_in_bfloat16(folder: Path, tokenizer: Any, out: Path) -> None:
    """Write the model in ``folder`` to ``out``, every number rounded to bfloat16.

    Args:
        folder: of the model.
        tokenizer: its tokenizer.
        out: where to; what lies there is replaced.

    Raises:
        RelexError: it cannot be written.
    """
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    save_model(load_model(folder).bfloat16(), tokenizer, out)


def encode(tokenizer: Any, prompts: list[str]) -> torch.Tensor:
    """Return the token ids of prompts of one length, int64 (N, prompt length)."""
    import torch

    return torch.tensor(tokenizer(prompts)["input_ids"])


def decode(tokenizer: Any, tokens: torch.Tensor) -> list[str]:
    """Return the texts of token ids, int64 (N, length), without padding and end marks."""
    texts: list[str] = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return texts


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread, since the bits of a sum depend on how many threads share it.

    At this size it is no slower, and far faster on a machine that is busy.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the bars that transformers shows for every file, and its own deprecations."""
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


@contextmanager
def without_deprecations() -> Iterator[None]:
    """Hide what transformers and PEFT say of names in transformers that will change one day."""
    with quiet_transformers(), warnings.catch_warnings():
        for name in ("past_key_values", "is_gradient_checkpointing"):
            warnings.filterwarnings("ignore", f".*{name}", FutureWarning)
        yield
