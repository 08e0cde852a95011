"""Whose file it is, by what stands in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from loralens.core.errors import InvalidInput
from loralens.trainers.axolotl import read_axolotl
from loralens.trainers.files import MAX_FILES, SourceFile, text_of
from loralens.trainers.litgpt import read_litgpt
from loralens.trainers.llama_factory import read_llama_factory, read_llama_factory_v1
from loralens.trainers.megatron import read_megatron
from loralens.trainers.ms_swift import read_ms_swift
from loralens.trainers.pythonfile import TRL_TRAINERS
from loralens.trainers.pythonfile import read_python as python_source
from loralens.trainers.reading import Reading
from loralens.trainers.shell import read_shell
from loralens.trainers.table import UNKNOWN, Table, table
from loralens.trainers.torchtune import read_torchtune
from loralens.trainers.transformers_script import read_transformers
from loralens.trainers.trl import read_python, read_trl, read_unsloth
from loralens.trainers.verl import read_verl
from loralens.trainers.yamlfile import read_yaml

READERS: Final[Mapping[str, Callable[[Reading], None]]] = {
    "axolotl": read_axolotl,
    "litgpt": read_litgpt,
    "llama-factory": read_llama_factory,
    "llama-factory-v1": read_llama_factory_v1,
    "megatron": read_megatron,
    "ms-swift": read_ms_swift,
    "torchtune": read_torchtune,
    "transformers-python": read_transformers,
    "trl": read_trl,
    "trl-python": read_python,
    "unsloth": read_unsloth,
    "verl": read_verl,
}
BY_PROGRAM: Final = {
    "swift": "ms-swift",
    "megatron": "ms-swift",
    "trl": "trl",
    "llamafactory": "llama-factory",
    "verl": "verl",
    "pretrain_gpt": "megatron",
}
BY_CALLS: Final = ("transformers-python", "trl-python", "unsloth")
"""Whose marks are a script's calls."""
OWN_ARGUMENTS: Final = ("call.TrainingArguments", "call.Seq2SeqTrainingArguments")
BESIDE: Final = ("distributed_type", "zero_optimization.stage")
"""Keys of the files that go with a training config: accelerate's, DeepSpeed's."""
TOML: Final = re.compile(r"^\[{1,2}[\w.-]+\]{1,2}[ \t]*(?:#.*)?$\s*[\w.-]+[ \t]*=", re.MULTILINE)
"""A table's head with its first key."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """The training file, and whose it is."""

    source: SourceFile
    table: Table


def read_files(files: object) -> dict[str, SourceFile]:
    """Every file as settings.

    Raises:
        InvalidInput, InputTooLarge: no files, too many, or one that cannot be read.
    """
    if not isinstance(files, Mapping) or not files:
        raise InvalidInput(
            "files must be an object of file name to text", field="files", hint='{"files": {"train.yaml": "…"}}'
        )
    if len(files) > MAX_FILES:
        raise InvalidInput(f"{len(files)} files, allowed are {MAX_FILES}", field="files")
    return {str(name)[:200]: read_file(str(name)[:200], content) for name, content in files.items()}


def read_file(name: str, content: object) -> SourceFile:
    """One file, by its name's ending, else by how it begins."""
    if not isinstance(content, (str, bytes)):
        raise InvalidInput(f"{name} must be text", field="files")
    text = text_of(name, content)
    lowered = name.lower()
    if lowered.endswith(".ipynb"):
        return python_source(name, text, notebook=True)
    if lowered.endswith(".py"):
        return _script(name, text)
    if lowered.endswith((".sh", ".bash")) or (
        not lowered.endswith((".yaml", ".yml", ".json")) and text.startswith("#!")
    ):
        return read_shell(name, text)
    if lowered.endswith(".toml") or TOML.search(text):
        raise InvalidInput(
            f"{name} is TOML, which is not read: torchtitan's configs are written that way, and torchtitan is no trainer here",
            field="files",
            hint="say it in words: strategy=fsdp2, gpus, tp, cp, pp, micro_batch_size, sequence_length",
        )
    return read_yaml(name, text)


def _script(name: str, text: str) -> SourceFile:
    """A Python script: what it sets itself, else the command that its first comment shows."""
    found = python_source(name, text)
    if any(key.startswith("args.") for key in found.settings):
        return found
    try:
        shown = read_shell(name, text)
    except InvalidInput:
        return found
    shown.notes.append("the command in the script's own description is read: what it is called with decides")
    return shown


def recognise(files: Mapping[str, SourceFile]) -> Recognised:
    """The file that sets the training up.

    Raises:
        InvalidInput: none of them is a known trainer's, or several are.
    """
    found = [(source, name) for source in files.values() if (name := _whose(source))]
    shells = [row for row in found if row[0].kind == "shell" and "config" not in row[0].settings]
    found = shells or [row for row in found if row[0].kind != "shell"] or found
    if not found:
        known = sorted({key for source in files.values() for key in source.settings})[:8]
        raise InvalidInput(
            f"no known trainer's config: {', '.join(files)} holds {', '.join(known) or 'no keys'}",
            field="files",
            hint="known are Axolotl, LLaMA-Factory, TRL, ms-swift, torchtune, LitGPT, Unsloth, verl, Megatron-LM and transformers' Trainer",
        )
    if len(found) > 1:
        raise InvalidInput(
            f"{len(found)} training configs: {', '.join(source.name for source, _ in found)}",
            field="files",
            hint="check one at a time; accelerate's and DeepSpeed's files may go with it",
        )
    source, name = found[0]
    return Recognised(source, table(name))


def _whose(source: SourceFile) -> str:
    keys = source.settings.keys()
    if source.kind == "shell":
        return BY_PROGRAM[source.program.split()[0]]
    if source.kind in ("python", "notebook"):
        loader = source.settings.get("call.from_pretrained")
        if loader is not None and str(loader.value).startswith("Fast"):
            return "unsloth"
        if any(key in keys for key in OWN_ARGUMENTS) and not any(f"call.{name}" in keys for name in TRL_TRAINERS):
            return "transformers-python"
        return "trl-python" if any(key.startswith("args.") for key in keys) else ""
    if any(key in keys for key in BESIDE) or ("model_type" in keys and "hidden_size" in keys):
        return ""
    scores = []
    for name in READERS:
        if name in BY_CALLS:
            continue
        known = table(name)
        if any(key not in keys for key in known.needs):
            continue
        marked = sum(any(key == mark or key.startswith(f"{mark}.") for key in keys) for mark in known.marks)
        understood = sum(known.row(key)[0] != UNKNOWN for key in keys)
        scores.append((marked, understood, name))
    best = max(scores, default=(0, 0, ""))
    return best[2] if best[0] >= 2 else ""
