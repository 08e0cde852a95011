"""`loralens check`: a trainer's own file, judged."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any

from loralens.cli.engine import engine_sentence
from loralens.cli.options import Json, read_json
from loralens.cli.recipe_line import options
from loralens.cli.render import gib, line, print_json, table, wrapped
from loralens.cli.verdict import EXIT_CODES, sentence
from loralens.cli.words import Argument, Option
from loralens.core.errors import InvalidInput

if TYPE_CHECKING:
    from loralens.trainers.shapes import CheckAnswer, CheckedChange, FileKey, MatteringLine


Files = Annotated[list[Path] | None, Argument("FILE", help="The training config, and the files it names.")]
Gpu = Annotated[
    str | None,
    Option("--gpu", help="The GPU to check; the one in this machine unless given.", metavar="TEXT", common=True),
]
Gpus = Annotated[
    int | None, Option("--gpus", help="How many GPUs share the work, if the file does not say.", metavar="INTEGER")
]
Model = Annotated[
    str | None, Option("--model", help="The model, where the file's name for it is not known.", metavar="TEXT")
]
Config = Annotated[Path | None, Option("--config", help="The model's config.json.", metavar="FILE")]
Write = Annotated[bool, Option("--write", help="Make the smallest change in the file itself; comments stay.")]
EXAMPLES = (
    ("loralens check train.yaml --gpu 24GB", "verdict, the lines that matter most; exit code 0, 4 or 5"),
    ("loralens check sft.sh zero3.json --gpu h100 --gpus 8", "a script and the DeepSpeed file that it names"),
    ("loralens check notebook.ipynb --gpu t4 --json", "the answer of POST /api/check"),
)
NOT_JUDGED = 2


def command(
    files: Files = None,
    gpu: Gpu = None,
    gpus: Gpus = None,
    model: Model = None,
    config: Config = None,
    write: Write = False,
    json: Json = False,
) -> int:
    """Does the training that a file describes fit? Axolotl, LLaMA-Factory, TRL, ms-swift, torchtune, Unsloth.

    Read are YAML, shell scripts, Python and notebooks; nothing in them is run. Exit code: 0 fits, 4 tight, 5 does not fit,
    2 where no figure can be given, with the reason.
    """
    from loralens.trainers.check import check_answer

    if not files:
        raise InvalidInput("no file was named", field="files", hint="try: loralens check train.yaml --gpu 24GB")
    body: dict[str, object] = {"files": contents(files), "gpu": gpu or _own_gpu()}
    if config is not None:
        body["config"] = read_json(str(config))
    body |= {name: value for name, value in (("gpus", gpus), ("model", model)) if value is not None}
    answer = check_answer(body)
    if json:
        print_json(answer)
    else:
        _show(answer)
    if write:
        write_change(answer["change"], answer["trainer"]["file"], files)
    if answer["blockers"]:
        return NOT_JUDGED
    return EXIT_CODES[answer["verdict"]] if answer["verdict"] else 0


def _own_gpu() -> str | None:
    from loralens.cli.here import gpu_of_this_machine

    try:
        return gpu_of_this_machine()
    except InvalidInput:  # none here: the peak is said without a verdict
        return None


def contents(files: list[Path]) -> dict[str, bytes]:
    """The files by name; of two with the same name the folder is said too."""
    from loralens.trainers.files import MAX_FILE_BYTES

    found: dict[str, bytes] = {}
    for path in files:
        try:
            with path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise InvalidInput(
                f"cannot read {path}: {error.strerror}", field="files", hint="give the path of a file"
            ) from None
        found[path.name if path.name not in found else str(PurePath(path))] = content
    return found


def _show(answer: CheckAnswer) -> None:
    trainer, model = answer["trainer"], answer["model"]
    subject = f"{answer['method']} on {model['name']}" if model else answer["method"]
    wrapped(f"{trainer['file']}: {trainer['title']} {trainer['version']}, {subject}")
    for note in model.get("read_as", ()) if model else ():
        wrapped(note)
    for row in answer["blockers"]:
        wrapped(f"no figure: {_place(row)}{row['says']}")
    if answer["recipe"]:
        wrapped("recipe: " + " ".join(options(answer["recipe"], answer["method"])))
    line()
    gpu, peak = answer["gpu"], answer["peak"]
    if gpu and peak and answer["verdict"] and answer["estimate"]:
        decided_by = answer["estimate"]["fits"][0]["decided_by"]
        wrapped(sentence(gpu, answer["verdict"], peak["needed_bytes"], decided_by))
    if peak:
        wrapped(f"Peak {gib(peak['allocated_bytes'])} allocated, in {peak['phase']} ({peak['at']}).")
        if answer["estimate"] and (beside := engine_sentence(answer["estimate"])):
            wrapped(beside)
        if not answer["verdict"]:
            wrapped("No GPU was named: say --gpu 24GB for a verdict.")
    _lines(answer["lines"])
    show_change(answer["change"])
    for row in answer["approximate"]:
        wrapped(f"not counted: {_place(row)}{row['says']}")
    for unknown in answer["unknown"]:
        meant = f"; did you mean {unknown['did_you_mean']}?" if unknown["did_you_mean"] else ""
        wrapped(f"not understood: {_place(unknown)}it may matter{meant}")
    for text in (*answer["questions"], *answer["notes"]):
        wrapped(text)


def show_change(change: CheckedChange | None) -> None:
    """The smallest change, as a diff where the file can be changed as text."""
    if change is None:
        return None
    line()
    wrapped("The smallest change with which it fits:")
    if change["diff"]:
        for text in change["diff"].splitlines()[2:]:
            line(text)
        return wrapped("--write makes it in the file.")
    for row in change["changes"]:
        wrapped(f"{row['key']}: {_text(row['from'])} → {_text(row['to'])} ({row['word']}; costs {row['cost']})")
    return wrapped(change["problem"]) if change["problem"] else None


def write_change(change: CheckedChange | None, file: str, files: list[Path]) -> None:
    """Make it in the one of the files that has this name; nothing where nothing has to change.

    Raises:
        InvalidInput: the file cannot be changed as text, or not be written.
    """
    if change is None:
        return
    path = next(path for path in files if file in (path.name, str(path)))
    if change["text"] is None:
        raise InvalidInput(
            f"{path} is not changed: {change['problem']}", field="write", hint="the changes are listed above"
        )
    try:
        path.write_text(change["text"], encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror}", field="write") from None


def _lines(rows: list[MatteringLine]) -> None:
    if not rows:
        return
    line()
    table(
        ["what matters most", "now → instead", "saves", "costs"],
        [
            (_key(row), f"{_text(row['value'])} → {_text(row['to'])}", gib(row["saves_bytes"]), row["cost"])
            for row in rows
        ],
        left=2,
    )


def _key(row: MatteringLine) -> str:
    if row["by_default"]:
        return f"{row['word']} (by default)"
    return f"{row['from'][0]['key']}, line {row['from'][0]['line']}"


def _place(row: FileKey) -> str:
    line_ = f", line {row['line']}" if row["line"] else ""
    return f"{row['key']}{line_}: " if row["key"] else ""


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value).lower()
