"""`loralens check`: a trainer's own file, judged. `POST /api/check` answers with the same object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from loralens.core import catalogue
from loralens.core.answer.answers import on_card
from loralens.core.answer.estimate import Estimate
from loralens.core.answer.trainer import trained
from loralens.core.errors import InvalidInput, LoraLensError, UnknownModel
from loralens.core.question.bodies import request_body
from loralens.core.question.model import Model, given, resolve
from loralens.core.question.presets import preset
from loralens.planner.advice import advise
from loralens.planner.question import Question
from loralens.trainers.files import FileSetting
from loralens.trainers.patch import changed_file
from loralens.trainers.reader import is_config, read, recipe_of
from loralens.trainers.reading import Reading

if TYPE_CHECKING:
    from loralens.planner.shapes import AdvisedChange
    from loralens.trainers.shapes import CheckAnswer, FileKey, MatteringLine, ReadWord, SaidKey


BODY: Final = ("files", "gpu", "gpus", "model", "config", "stack")
MOST_LINES: Final = 8
MOST_SUGGESTIONS: Final = 20


def check_answer(body: Any) -> CheckAnswer:
    """Verdict, peak, the lines that matter most, what was not understood, and the smallest change.

    `verdict` is null where no figure can be given; `blockers` says why. `gpus`, `model` or `config`, and `stack` say what
    the file cannot: how many GPUs, which model, which versions.

    Raises:
        InvalidInput, InputTooLarge: the body, a file or a value in it cannot be read; no known trainer's file is among them.
        UnknownGpu: there is no such GPU.
    """
    body = request_body(body, BODY, '{"files": {"train.yaml": "…"}, "gpu": "24GB"}')
    device = None if body.get("gpu") is None else catalogue.gpu(body["gpu"])
    _refuse_unlike(body)
    r = read(body)
    title = preset(r.table.trainer)
    answer: CheckAnswer = {
        "trainer": {"name": title.name, "title": title.title, "version": r.stack.get(title.library, title.version),
                    "file": r.source.name, "kind": r.source.kind, "source": r.table.source},
        "model": None, "method": r.method, "recipe": None, "gpu": None, "verdict": None, "peak": None, "estimate": None,
        "lines": [], "change": None,
        "words": [_word(r, name) for name in r.words],
        "blockers": [_said(setting, says) for setting, says in r.blocks],
        "approximate": [_said(setting, says) for setting, says in r.approximate],
        "unknown": [{**_at(setting), "did_you_mean": r.closest(setting.key) if number < MOST_SUGGESTIONS else None}
                    for number, setting in enumerate(r.unknown)],
        "questions": list(r.questions), "notes": [*r.source.notes, *r.notes], "without_memory": r.left_out,
    }  # fmt: skip
    if device is not None:
        answer["gpu"] = {"id": device.id, "name": device.name, "memory_bytes": device.memory_bytes}
    question = None if r.blocks else _question(r, body, answer)
    if question is None:
        return answer
    found = question.estimate()
    _judged(answer, question, found, None if device is None else device.id)
    if device is not None:
        advice = advise(question, device)
        answer["lines"] = _lines(r, advice["changes"])
        answer["change"] = None if answer["verdict"] == "fits" else changed_file(r, question, advice["path"])
    return answer


def _refuse_unlike(body: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` where model or config is nothing of the kind: the body's fault, and no blocker of the file's."""
    if body.get("config") is not None:
        given(body["config"])
    model = body.get("model")
    if model is not None and not (isinstance(model, str) and model.strip()):
        raise InvalidInput(f"model must be a name, got {model!r:.40}", field="model", hint="try 7B, or send config")


def _question(r: Reading, body: Mapping[str, Any], answer: CheckAnswer) -> Question | None:
    """The question of the file; None, with a blocker, where the model or a combination is not known."""
    try:
        question = _asked(r, body)
        question.estimate()
    except LoraLensError as error:
        named = r.model_setting if isinstance(error, UnknownModel) else None
        place = _at(named or FileSetting(error.field or "", None, r.source.name, 0))
        answer["blockers"].append({**place, "says": error.message + (f" ({error.hint})" if error.hint else "")})
        return None
    answer["method"], answer["model"] = question.method, question.model_dict()
    return question


def _asked(r: Reading, body: Mapping[str, Any]) -> Question:
    model = _model(r, body)
    if model.packing is not None and r.method != "full":
        r.method = "qlora" if model.packing in ("nf4", "fp4") else "lora"
    recipe = model.packed(on_card(recipe_of(r), None, body.get("gpu")), (r.method,))
    return Question(model, r.method, trained(model, r.method, recipe))


def asked_by(body: Mapping[str, Any]) -> tuple[Reading, Question]:
    """What files say, and the question that they ask.

    Raises:
        InvalidInput: the files cannot be read, or ask for something that is not modelled.
        UnknownModel: the model is not known.
    """
    r = read(body)
    if r.blocks:
        setting, says = r.blocks[0]
        raise InvalidInput(f"{setting.where}: {setting.key}: {says}", field="files")
    return r, _asked(r, body)


def _model(r: Reading, body: Mapping[str, Any]) -> Model:
    """As the user says, else a config.json among the files, else the file's own name for it."""
    if body.get("config") is not None or body.get("model") is not None:
        return resolve(body.get("model"), body.get("config"))
    beside = next((one.whole for one in r.files.values() if is_config(one.whole)), None)
    if beside is not None:
        return resolve(None, dict(beside))
    if r.config is not None:
        return resolve(None, r.config)
    if r.model is None:
        raise UnknownModel(
            "the file does not name the model",
            field="model",
            hint="say it: --model NAME, or give its config.json as a file",
        )
    return resolve(str(r.model))


def _judged(answer: CheckAnswer, question: Question, found: Estimate, gpu: str | None) -> None:
    whole = found.to_dict(() if gpu is None else (gpu,))
    answer["recipe"] = whole["recipe"]
    answer["peak"] = whole["peak"]
    answer["estimate"] = whole
    answer["verdict"] = whole["fits"][0]["verdict"] if gpu is not None else None


def _word(r: Reading, name: str) -> ReadWord:
    return {"word": name, "value": r.words[name], "from": [_at(one) for one in r.because[name]]}


def _at(setting: FileSetting) -> FileKey:
    value = setting.value
    short = value if isinstance(value, (int, float, bool, type(None))) else str(value)[:120]
    return {"key": setting.key, "value": short, "file": setting.file, "line": setting.line}


def _said(setting: FileSetting, says: str) -> SaidKey:
    return {**_at(setting), "says": says}


def _lines(r: Reading, changes: list[AdvisedChange]) -> list[MatteringLine]:
    """What single changes save, by the line that says the word now; the largest first."""
    rows: dict[str, MatteringLine] = {}
    for change in changes:
        name = change["field"]
        settings = r.because.get(name, ())
        row: MatteringLine = {
            "word": name,
            "value": change["from"],
            "to": change["to"],
            "saves_bytes": change["saves_bytes"],
            "cost": change["cost"],
            "from": [_at(one) for one in settings],
            "by_default": not settings,
        }
        if name not in rows or rows[name]["saves_bytes"] < row["saves_bytes"]:
            rows[name] = row
    return sorted(rows.values(), key=lambda row: -row["saves_bytes"])[:MOST_LINES]
