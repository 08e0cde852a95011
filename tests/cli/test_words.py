"""The quick reader and typer understand a command line alike."""

from __future__ import annotations

from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralens.cli.words import for_typer, read

LINES = [
    "memory 7B",
    "memory 7B --json",
    "memory 7B --rank 16 --rank 8 -m lora --method=qlora --explain",
    "memory --config some/config.json --no-padded --gradient-checkpointing",
    "memory 7B --target-modules=q_proj,v_proj --alpha -3",
    "params --request -",
    "models",
    "models 7B --json",
    "models --family llama",
    "gpus rtx-4090",
    "plan 7B -m full",
]
LEFT_TO_TYPER = [
    "memory --help",
    "memory 7B 13B",
    "memory 7B --rank",
    "memory 7B --rnk 8",
    "memory 7B --json=yes",
    "memory 7B -mlora",
    "memory -- 7B",
    "serve --port 99999",
    "models a b",
]


def by_typer(verb, words):
    """What typer would call the command with, or None if it refuses."""
    import typer

    command = import_module(f"loralens.cli.{verb}").command
    seen = []
    app = typer.Typer(add_completion=False)
    recorder = for_typer(command)

    def record(**values):
        seen.append(values)

    record.__signature__ = recorder.__signature__
    record.__annotations__ = recorder.__annotations__
    app.command()(record)
    try:
        app(args=words, standalone_mode=False)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        return None
    return seen[0] if seen else None


@pytest.mark.parametrize("line", LINES)
def test_both_read_the_same(line):
    verb, *words = line.split()
    quick = read(import_module(f"loralens.cli.{verb}").command, words)
    assert quick is not None
    assert quick == by_typer(verb, words)


@pytest.mark.parametrize("line", LEFT_TO_TYPER)
def test_what_is_not_plain_is_left_to_typer(line):
    verb, *words = line.split()
    assert read(import_module(f"loralens.cli.{verb}").command, words) is None


WORDS = [
    "7B",
    "--json",
    "--explain",
    "-m",
    "lora",
    "--method=qlora",
    "--rank",
    "8",
    "--padded",
    "--no-padded",
    "--gpu",
    "-",
    "=",
]


@given(st.lists(st.sampled_from(WORDS) | st.text(alphabet="-=a8 ", max_size=4), max_size=6))
def test_the_quick_reader_never_accepts_what_typer_refuses_or_reads_otherwise(words):
    quick = read(import_module("loralens.cli.memory").command, words)
    if quick is not None:
        assert quick == by_typer("memory", words)
