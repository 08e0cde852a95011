"""`loralens export`: a recipe as a trainer's config. What the trainer cannot say is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from loralens.core.answer.trainer import trained
from loralens.core.errors import InvalidInput
from loralens.core.question.needs import IN_PLACE, NO_MEMORY
from loralens.core.question.presets import preset
from loralens.core.question.recipe import ALL_WORDS, Recipe
from loralens.planner.question import Question, read_question
from loralens.trainers.reader import read, recipe_of
from loralens.trainers.writing import WRITERS, render

MOST_WORDS: Final = 12
HEAD: Final = (
    "# What decides the memory of a step. The data, the learning rate and the folder for results are yours to add.\n"
)


def export_answer(body: Any) -> dict[str, Any]:
    """The config as text, with the command that runs it.

    Raises:
        InvalidInput: an unknown trainer, several methods, or words that this trainer cannot say.
        UnknownModel: nothing has that name.
    """
    name = str(body.get("to")) if isinstance(body, Mapping) else ""
    if name not in WRITERS:
        raise InvalidInput(f"there is no export to {name[:40]!r}", field="to", hint=f"one of {', '.join(WRITERS)}")
    recipe = body.get("recipe")
    if isinstance(recipe, Mapping):  # what is left open stands as this trainer has it
        body = {**body, "recipe": {"trainer": name, **recipe}}
    elif recipe is None:
        body = {**body, "recipe": {"trainer": name}}
    question, _ = read_question(body, ("to",))
    given = body.get("model")
    model = given if isinstance(given, str) else question.model.name
    text = HEAD + written(question, name, model)
    gpus = question.recipe.parallelism.gpus
    return {
        "trainer": {"name": name, "title": preset(name).title, "version": preset(name).version},
        "file": "train.yaml",
        "text": text,
        "command": _command(name, gpus),
        "recipe": question.estimate().recipe.to_dict(),
    }


def written(question: Question, name: str, model: str) -> str:
    """The config's text; reads back as the same recipe.

    Raises:
        InvalidInput: words that this trainer cannot say, by name.
    """
    recipe = question.estimate().recipe
    text = render(WRITERS[name](model, question.method, recipe))
    lost = lost_words(question, recipe, name, text)
    if lost:
        title = preset(name).title
        raise InvalidInput(
            f"{title} cannot say: {', '.join(f'{word}={_text(recipe.get(word))}' for word in lost[:MOST_WORDS])}",
            field=lost[0],
            hint=f"leave them open with trainer={name}, or change them",
        )
    return text


def lost_words(question: Question, recipe: Recipe, name: str, text: str) -> list[str]:
    """The words that come back different when the text is read."""
    gpus = recipe.parallelism.gpus
    r = read({"files": {"train.yaml": text}} | ({"gpus": gpus} if gpus > 1 else {}))
    if r.table.name != name or r.blocks or r.method != _base(question.method, recipe):
        return ["method"]
    back = trained(question.model, question.method, recipe_of(r))
    back = Question(question.model, question.method, back).estimate().recipe
    return [
        row.name
        for row in ALL_WORDS
        if _means(row, question.method, recipe) and row.kind.flat and recipe.get(row.name) != back.get(row.name)
    ]


def _base(method: str, recipe: Recipe) -> str:
    """What a file says of a method: DoRA is a switch of LoRA, QLoRA a LoRA on four bits."""
    four = recipe.quantization is not None and recipe.quantization.type in ("nf4", "fp4")
    return "full" if method == "full" else "qlora" if four else "lora"


def _means(row: Any, method: str, recipe: Recipe) -> bool:
    if row.name in ("trainer", "stack") or (
        row.group == "quantization" and recipe.quantization is None and row.name != "quantization"
    ):
        return False
    return all(need.holds(method, recipe) for need in row.needs if need not in (NO_MEMORY, IN_PLACE))


def _command(name: str, gpus: int) -> str:
    many = f"torchrun --nproc-per-node {gpus} -m " if gpus > 1 else ""
    return {
        "axolotl": "axolotl train train.yaml" + (f" --num-processes {gpus}" if gpus > 1 else ""),
        "llama-factory": (f"FORCE_TORCHRUN=1 NPROC_PER_NODE={gpus} " if gpus > 1 else "")
        + "llamafactory-cli train train.yaml",
        "trl": (f"{many}trl.cli.main " if many else "trl ") + "sft --config train.yaml",
        "ms-swift": (f"NPROC_PER_NODE={gpus} " if gpus > 1 else "") + "swift sft train.yaml",
    }[name]


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value).lower()
