"""Accuracy of predicted weights of a miniature run, each prediction measured once and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch

from relex_merge.demo.evaluate import Accuracy, evaluate
from relex_merge.demo.model import build_tokenizer, load_model, one_thread
from relex_merge.demo.tasks import load_task, split_prompts
from relex_merge.engine import kernels
from relex_merge.trajectory.gram import Array
from tests.benchmarks.miniature import MiniatureRun, base_folder


class Examiner:
    """Measures predictions of one run on the demo's held-out problems.

    Greedy, and sampled with the same random numbers for every prediction of the run.
    """

    def __init__(self, run: MiniatureRun, cache: Path) -> None:
        key = run.key
        self.run = run
        self._file = (cache / key.file_name).with_suffix(".accuracy.json")
        self._known: dict[str, list[float]] = (
            json.loads(self._file.read_text()) if self._file.is_file() else {}
        )
        self._task = load_task(key.task)
        self._tokenizer = build_tokenizer(self._task)
        self._held_out = split_prompts(self._task, key.settings.stream("problems")).held_out
        self._model = load_model(base_folder(key, cache))

    def checkpoint(self, index: int) -> Accuracy:
        """Of the checkpoint kept at ``steps[index]``."""
        weights = {name: rows[index + 1] for name, rows in self.run.weights.items()}
        return self._measure(f"step {self.run.steps[index]:g}", weights)

    def predicted(self, W: Mapping[str, Array]) -> Accuracy:
        """Of θ₀ + Σ_t w_t δ_t, W: name → w (T,) over the first T kept checkpoints."""
        digest = hashlib.sha256(b"".join(w.tobytes() for w in W.values())).hexdigest()[:16]
        weights = {}
        for name, w in W.items():
            rows = self.run.weights[name][: len(w) + 1]
            out = torch.empty_like(rows[0])
            dtype = kernels.compute_dtype(rows, rows.shape[1])
            kernels.combine(rows, torch.from_numpy(w)[None], [out], dtype)
            weights[name] = out
        return self._measure(digest, weights)

    def _measure(self, label: str, weights: Mapping[str, torch.Tensor]) -> Accuracy:
        if label not in self._known:
            with one_thread(), torch.no_grad():
                for name, parameter in self._model.named_parameters():
                    parameter.copy_(weights[name].view(parameter.shape))
                seed = self.run.key.settings.stream("evaluation")
                found = evaluate(self._model, self._tokenizer, self._task, self._held_out, seed)
            self._known[label] = [found.greedy, found.sampled, found.problems]
            partial = self._file.with_suffix(".partial")
            partial.write_text(json.dumps(self._known))
            partial.replace(self._file)
        greedy, sampled, problems = self._known[label]
        return Accuracy(greedy, sampled, int(problems))
