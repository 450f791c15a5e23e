"""What a model folder holds besides weights: configuration, tokenizer, chat template, generation.

The configuration is the base's, as in mergekit. Tokenizer, chat template and generation config come
from the last observed checkpoint where it has them, else from the base: RLVR trains with a chat
template that the base may not have.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from relex_merge.checkpoints.files import (
    CHAT_TEMPLATE,
    GENERATION,
    PROCESSOR,
    TOKENIZER,
    VOCABULARY,
)
from relex_merge.checkpoints.json_files import peek_json
from relex_merge.errors import disk_errors

if TYPE_CHECKING:
    from mergekit.options import MergeOptions

    from relex_merge.pipeline.prepare import Prepared


def complete_model(prepared: Prepared, folders: Sequence[Path], merge: MergeOptions) -> None:
    """Write configuration, tokenizer, chat template and generation config beside the weights."""
    base, last = prepared.snapshots[0], prepared.snapshots[-1]
    donors = [last.folder, base.folder] if merge.copy_tokenizer else []
    prepared.config.dtype = prepared.output_dtype
    for folder in folders:
        with disk_errors(folder):
            prepared.config.save_pretrained(folder)
        copy_companions(donors, folder, prepared.architecture.tagalong_files or ())


def complete_adapter(prepared: Prepared, folders: Sequence[Path], merge: MergeOptions) -> None:
    """Write tokenizer and chat template beside an adapter, where they are wanted."""
    base, last = prepared.snapshots[0], prepared.snapshots[-1]
    for folder in folders if merge.copy_tokenizer else ():
        copy_tokenizer([last.folder, base.folder], folder)


def copy_companions(
    donors: Sequence[Path], folder: Path, tagalong: Sequence[str] = (), *, tokenizer: bool = True
) -> None:
    """Copy each kind of file from the first of ``donors`` that has it.

    Args:
        donors: folders to copy from, the preferred one first.
        folder: where to copy to.
        tagalong: further files that mergekit's architecture definition names.
        tokenizer: whether tokenizer and chat template are to be copied too.
    """
    with disk_errors(folder):
        if tokenizer:
            copy_tokenizer(donors, folder)
        _copy(donors, folder, PROCESSOR, needs=PROCESSOR)
        _copy(donors, folder, GENERATION, needs=GENERATION)
        for file in tagalong:
            _copy(donors, folder, (file,), needs=(file,))


def copy_tokenizer(donors: Sequence[Path], folder: Path) -> None:
    """Copy tokenizer and chat template, each from the first of ``donors`` that has one."""
    with disk_errors(folder):
        _copy(donors, folder, TOKENIZER, needs=VOCABULARY)
        _copy_chat_template(donors, folder)


def _copy(
    donors: Sequence[Path], folder: Path, files: Sequence[str], *, needs: Sequence[str]
) -> None:
    donor = next((d for d in donors if any((d / f).is_file() for f in needs)), None)
    for file in files if donor else ():
        if donor and (donor / file).is_file():
            shutil.copyfile(donor / file, folder / file)


def _copy_chat_template(donors: Sequence[Path], folder: Path) -> None:
    """Copy the template, be it in a file of its own or inside tokenizer_config.json."""
    for donor in donors:
        if any((donor / file).is_file() for file in CHAT_TEMPLATE):
            _copy([donor], folder, CHAT_TEMPLATE, needs=CHAT_TEMPLATE)
            return
        template = _embedded_template(donor)
        if template is not None:
            if _embedded_template(folder) != template:
                (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
            return


def _embedded_template(folder: Path) -> str | None:
    template = peek_json(folder / "tokenizer_config.json").get("chat_template")
    return template if isinstance(template, str) else None
