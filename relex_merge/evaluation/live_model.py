"""One transformers model in memory whose weights are set in place, one candidate after another."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from relex_merge.errors import RelexError, disk_errors


class LiveModel:
    """A causal language model, loaded once.

    Args:
        folder: of the base: configuration, weights and generation config.
        label: names the base in messages.
        device: where the model sits.
        trust_remote_code: whether code that the model brings may run.

    Raises:
        RelexError: transformers cannot load the model.
    """

    def __init__(
        self, folder: Path, label: str, device: torch.device, *, trust_remote_code: bool = False
    ) -> None:
        from transformers import AutoModelForCausalLM

        try:
            # float32 whatever is stored: the differences between candidates are small.
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, trust_remote_code=trust_remote_code
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise RelexError(f"{label}: transformers cannot load it: {error}") from error
        self.model: Any = model.eval().to(device)
        self._label = label
        self._parameters = {
            **dict(self.model.named_buffers()),
            **dict(self.model.named_parameters(remove_duplicate=False)),
        }

    def check_names(self, base: Mapping[str, tuple[int, ...]]) -> None:
        """Raise RelexError unless every tensor of the series is a parameter of the model.

        Args:
            base: name of a tensor → its shape.
        """
        for name, shape in base.items():
            parameter = self._parameters.get(name)
            if parameter is None or tuple(parameter.shape) != shape:
                raise RelexError(
                    f"{self._label}: transformers stores {name} under another name or in another "
                    "shape than the checkpoint, so its weights cannot be set in place; run the "
                    "recipe and evaluate the finished outputs"
                )

    def save(self, folder: Path, dtype: torch.dtype, tokenizer: Any) -> Path:
        """Write the model as it is now, for a backend that loads models from the disk.

        Args:
            folder: where to; what it holds is replaced.
            dtype: of the numbers in the files.
            tokenizer: written beside them.

        Raises:
            RelexError: the disk does not take it.
        """
        state = {
            name: tensor.to(dtype) if tensor.is_floating_point() else tensor
            for name, tensor in self.model.state_dict().items()
        }
        config = copy.deepcopy(self.model.config)
        config.dtype = dtype
        with disk_errors(folder):
            self.model.save_pretrained(folder, state_dict=state)
            config.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        return folder

    def put(self, name: str, numbers: torch.Tensor) -> None:
        """Set one parameter from its numbers in row-major order, in any dtype."""
        parameter = self._parameters[name]
        with torch.no_grad():
            parameter.copy_(numbers.reshape(parameter.shape))
