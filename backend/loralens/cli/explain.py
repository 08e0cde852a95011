"""`loralens explain`: which tensor an out-of-memory message is about."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from loralens.cli.check import Write, contents, show_change, write_change
from loralens.cli.options import Json, read_json
from loralens.cli.recipe_line import option, options
from loralens.cli.render import gib, line, print_json, table, wrapped
from loralens.cli.words import Argument, Option
from loralens.core.errors import InvalidInput

if TYPE_CHECKING:
    from loralens.trainers.shapes import ExplainAnswer, GuessedSetUp, SnapshotAnswer


File = Annotated[
    str | None,
    Argument(
        "FILE", help="The log with the message, the message itself, or - for stdin; or a snapshot of torch.cuda.memory."
    ),
]
Training = Annotated[
    list[Path] | None,
    Option("--training", help="The trainer's file (and the files it names).", metavar="FILE", common=True),
]
Model = Annotated[
    str | None, Option("--model", help="The model, without a trainer's file.", metavar="TEXT", common=True)
]
Method = Annotated[str | None, Option("--method", short="-m", help="full, lora, qlora or dora.", metavar="TEXT")]
Recipe = Annotated[Path | None, Option("--recipe", help="The recipe's words as JSON.", metavar="FILE")]
Gpus = Annotated[
    int | None, Option("--gpus", help="How many GPUs share the work, if the file does not say.", metavar="INTEGER")
]
EXAMPLES = (
    ("loralens explain crash.log --training train.yaml", "the tensor, its phase, and what would help"),
    ("loralens explain crash.log --training train.yaml --write", "and makes the smallest change in the file"),
    ("loralens explain - --model 8B --method qlora", "the message from stdin"),
    ("loralens explain crash.log --json", "the answer of POST /api/explain; without a set-up, the likeliest tensors"),
    ("loralens explain memory.pickle --training train.yaml", "a memory snapshot: what is alive, term by term"),
)
MOST_TERMS = 20
LOG_BYTES = 200_000  # the message stands at the end of a log
REASONS = {
    "need": "The step needs more than the card has.",
    "fragmentation": "Fragmentation: PyTorch holds nearly enough that nobody uses, in pieces. "
    "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True may be all it takes.",
    "others": "Something else on this card holds more than this training: look at nvidia-smi.",
    "other_run": "This message is not of the computed set-up: no request of its step has that size. Compare batch, sequence length, "
    "checkpointing, model and loss with the run that failed; an evaluation or a generation asks for tensors of its own.",
    "nearly": "The step needs nearly all that the card has: what other processes and fragmentation keep decides.",
    "beside": "The computed step fits this card, so something held more: look at nvidia-smi, at longer samples, and at what the run does "
    "besides its step, such as an evaluation.",
}


def command(
    file: File = None,
    training: Training = None,
    model: Model = None,
    method: Method = None,
    recipe: Recipe = None,
    gpus: Gpus = None,
    write: Write = False,
    json: Json = False,
) -> None:
    """Which tensor did PyTorch fail to allocate, in which phase, and what would help?

    With the training's set-up its requests are known one by one; without it the likeliest tensors of that size are named,
    which is a guess. Of a memory snapshot each live block is matched to a term of the step; nothing in the file is run.
    """
    from loralens.trainers.explain import explain_answer, set_up

    body: dict[str, object] = {}
    snapshot = file is not None and file != "-" and _is_pickle(file)
    if write and (snapshot or not training):
        raise InvalidInput(
            "--write changes the file of --training, for a message",
            field="write",
            hint="try: loralens explain crash.log --training train.yaml --write",
        )
    if not snapshot:
        body["text"] = _end_of(file)
    if training:
        body["files"] = contents(training)
    if recipe is not None:
        body["recipe"] = read_json(str(recipe))
    body |= {name: value for name, value in (("model", model), ("method", method), ("gpus", gpus)) if value is not None}
    if snapshot and file is not None:
        from loralens.trainers.snapshot import explain_snapshot

        with Path(file).open("rb") as opened:
            found = explain_snapshot(opened, Path(file).name, set_up(body))
        return print_json(found) if json else _show_snapshot(found)
    answer = explain_answer(body)
    if json:
        print_json(answer)
    else:
        _show(answer)
    if write and training and answer["change"]:
        write_change(answer["change"], answer["change"]["file"], training)
    return None


def _is_pickle(file: str) -> bool:
    """A pickle of protocol 2 or later begins with its opcode; a log does not."""
    try:
        with Path(file).open("rb") as opened:
            return opened.read(1) == b"\x80"
    except OSError:
        return False  # reading it says why


def _end_of(file: str | None) -> str:
    if file is None:
        raise InvalidInput("no file was named", field="text", hint="try: loralens explain crash.log, or - for stdin")
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        if "out of memory" in file.lower():
            return file
        raise InvalidInput(
            f"cannot read {file}: {error.strerror}",
            field="text",
            hint="give the path of a log, the message in quotes, or - for stdin",
        ) from None
    return raw[-LOG_BYTES:].decode("utf-8", "replace")


def _show_snapshot(found: SnapshotAnswer) -> None:
    table(
        ["the snapshot has", ""],
        [
            ("reserved", gib(found["reserved_bytes"])),
            ("allocated", gib(found["allocated_bytes"])),
            ("unexplained", gib(found["unexplained_bytes"])),
        ],
    )
    if found["terms"]:
        line()
        table(
            ["what is alive", "of", "bytes", "how many", "known by"],
            [
                (row["name"], row["category"], gib(row["bytes"]), str(row["count"]), row["by"])
                for row in found["terms"][:MOST_TERMS]
            ],
            left=2,
        )
    if found["unexplained"]:
        line()
        table(
            ["unexplained", "how many", "bytes", "each"],
            [
                (
                    row["stack"][0] if row["stack"] else "no stack",
                    str(row["count"]),
                    gib(row["bytes"]),
                    gib(row["each_bytes"]),
                )
                for row in found["unexplained"]
            ],
            left=1,
        )
    for note in found["notes"]:
        wrapped(note)


def _show(answer: ExplainAnswer) -> None:
    message = answer["message"]
    figures = {
        "tried": message["tried_bytes"],
        "capacity": message["capacity_bytes"],
        "free": message["free_bytes"],
        "allocated": message["allocated_bytes"],
        "cached": message["cached_bytes"],
    }
    table(["the message says", ""], [(name, gib(size)) for name, size in figures.items() if size is not None])
    wrapped(REASONS[answer["reason"]])
    if answer["recipe"]:
        wrapped("set-up: " + " ".join(options(answer["recipe"], answer["method"])))
        wrapped(f"computed peak {gib(answer['peak_allocated_bytes'])}")
    if answer["tensors"]:
        line()
        table(
            ["tensor of that size", "phase", "bytes", "alive before it", "how many"],
            [
                (row["name"], row["phase"], gib(row["bytes"]), gib(row["alive_bytes"]), str(row["count"]))
                for row in answer["tensors"]
            ],
            left=2,
        )
    if answer["guesses"]:
        line()
        table(
            ["it may have been", "how likely", "phase", "bytes", "as in"],
            [
                (row["name"], _likely(row["share"]), row["phase"], gib(row["bytes"]), _set_up(row["set_ups"][0]))
                for row in answer["guesses"]
            ],
            left=2,
        )
    if answer["change"]:
        show_change(answer["change"])
    elif answer["changes"]:
        line("To make it fit: " + " ".join(option(row["field"], row["to"]) for row in answer["changes"]))
    for note in answer["notes"]:
        wrapped(note)


def _likely(share: float) -> str:
    return "< 1%" if share < 0.005 else f"{share:.0%}"


def _set_up(row: GuessedSetUp) -> str:
    return f"{row['model']} {row['method']}, {row['micro_batch_size']} × {row['sequence_length']}"
