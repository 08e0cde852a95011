"""`loralens export`: a recipe as a trainer's config or script. What the trainer cannot say is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from loralens.core import catalogue
from loralens.core.answer.adapter_serving import vllm_line
from loralens.core.answer.trainer import trained
from loralens.core.architecture.registry import build
from loralens.core.errors import InvalidInput
from loralens.core.methods.adapters import selector
from loralens.core.question.model import resolve
from loralens.core.question.needs import IN_PLACE, NO_MEMORY, Need
from loralens.core.question.objectives import GROUPED
from loralens.core.question.presets import preset
from loralens.core.question.recipe import ALL_WORDS, NO_TRAINER, Recipe
from loralens.core.question.words import Word
from loralens.planner.question import Question, read_question
from loralens.trainers.reader import read, recipe_of
from loralens.trainers.targets import TARGETS, Target
from loralens.trainers.trl_objectives import COMPLETION, PROMPT
from loralens.trainers.write_objectives import completion_tokens
from loralens.trainers.write_verl import as_verl_has_it

if TYPE_CHECKING:
    from loralens.trainers.shapes import ExportAnswer


MOST_WORDS: Final = 12
ROWS: Final = {row.name: row for row in ALL_WORDS}


def export_answer(body: Any) -> ExportAnswer:
    """The config or script as text, with the command that runs it, and vLLM's for the adapter.

    Raises:
        InvalidInput: an unknown trainer, several methods, or words that this trainer cannot say.
        UnknownModel: nothing has that name.
    """
    name = str(body.get("to")) if isinstance(body, Mapping) else ""
    if name not in TARGETS:
        raise InvalidInput(f"there is no export to {name[:40]!r}", field="to", hint=f"one of {', '.join(TARGETS)}")
    target, recipe = TARGETS[name], body.get("recipe")
    if isinstance(recipe, Mapping):  # what is left open stands as this trainer has it
        body = {**body, "recipe": {"trainer": target.trainer, **recipe}}
    elif recipe is None:
        body = {**body, "recipe": {"trainer": target.trainer}}
    question, _ = read_question(body, ("to",))
    model = _hub_name(question, body.get("model"))
    if target.trainer == "verl":
        if question.recipe.objective.type == "ppo" and question.recipe.value.together:
            raise _cannot_say(target, ["value_together=true"], "value_together")
        for word, value in as_verl_has_it(question.recipe, Recipe.from_mapping(body["recipe"]).left_open).items():
            question = question.with_(word, value)
        question = _beside_on_the_hub(question, model)
    else:
        question = _in_mixed_precision(_said(question, body["recipe"]), body["recipe"], target)
    title = preset(target.trainer)
    try:
        used = question.estimate().recipe
    except InvalidInput as problem:
        if problem.field != "parallelism.ep":
            raise
        # none of these files divides experts, whatever else stands in the way beside this trainer's defaults
        raise _cannot_say(target, [f"ep={question.recipe.parallelism.ep}"], "ep") from problem
    text, file = written(question, target, model), target.file(question.method, used)
    line, against = (None, None) if question.method == "full" else vllm_line(model, used)
    return {
        "trainer": {"name": title.name, "title": title.title, "version": title.version},
        "file": file,
        "text": text,
        "command": target.command(question.method, file, used),
        "serve": {"command": line, "says": against},
        "recipe": used.to_dict(),
    }


def _said(question: Question, given: Mapping[str, Any]) -> Question:
    """With what GRPO's trainer always has, where the question leaves it open: how long completions are, and what writes them."""
    recipe = question.recipe
    if recipe.objective.type not in GROUPED:
        return question
    if recipe.labelled_tokens is None and given.get("sequence_length") is None:
        question = question.with_("labelled_tokens", COMPLETION).with_("sequence_length", PROMPT + COMPLETION)
    elif recipe.labelled_tokens is None:
        question = question.with_("labelled_tokens", completion_tokens(recipe))
    if given.get("rollout") is None and recipe.rollout.engine == "none":
        question = question.with_("rollout", "transformers")
    return question


def _in_mixed_precision(question: Question, given: Mapping[str, Any], target: Target) -> Question:
    """FSDP2 gathers and reduces in the mixed precision's dtype, where accelerate sets it up and the question leaves it open."""
    recipe, said = question.recipe, given.get("parallelism")
    named = said if isinstance(said, Mapping) else {}
    if (
        recipe.parallelism.strategy != "fsdp2"
        or recipe.autocast is None
        or target.trainer not in ("trl", "transformers")
    ):
        return question
    for word in ("gather_dtype", "reduce_dtype"):
        if named.get(word) is None:
            question = question.with_(word, recipe.autocast)
    return question


def _hub_name(question: Question, given: Any) -> str:
    """What a trainer finds: the name as it is given if that is one of the Hub, else the catalogue's name there."""
    if isinstance(given, str) and "/" in given:
        return given
    if question.model.key is not None:
        return catalogue.entry(question.model.key).hf_id
    return given if isinstance(given, str) else question.model.name


def _beside_on_the_hub(question: Question, model: str) -> Question:
    """With the Hub's names of the models beside the policy; the policy's own name as value model is what no name means."""
    for word in ("value_model", "reward_model"):
        given = question.recipe.get(word)
        if not isinstance(given, str):
            continue
        key = resolve(given).key
        found = given if "/" in given or key is None else catalogue.entry(key).hf_id
        question = question.with_(word, None if (word, found) == ("value_model", model) else found)
    return question


def written(question: Question, target: Target, model: str) -> str:
    """The config's text; reads back as the same recipe.

    Raises:
        InvalidInput: words that this trainer cannot say, by name.
    """
    recipe = question.estimate().recipe
    text = target.write(model, question.method, recipe)
    lost = lost_words(question, recipe, target, text)
    if lost:
        said = [
            f"{word}={_text(_value(question, recipe, word))}{_why_idle(word, question.method, recipe)}"
            for word in lost[:MOST_WORDS]
        ]
        raise _cannot_say(target, said, lost[0])
    return text


def _cannot_say(target: Target, said: list[str], word: str) -> InvalidInput:
    return InvalidInput(
        f"{preset(target.trainer).title} cannot say: {', '.join(said)}",
        field=word,
        hint=f"leave them open with trainer={target.trainer}, or change them",
    )


def _value(question: Question, recipe: Recipe, word: str) -> Any:
    return question.method if word == "method" else _shown(ROWS[word], recipe)


def lost_words(question: Question, recipe: Recipe, target: Target, text: str) -> list[str]:
    """The words that come back different when the text is read, those that mean nothing here too if they were set."""
    gpus = recipe.parallelism.gpus
    file = target.file(question.method, recipe)
    r = read({"files": {file: text}} | ({"gpus": gpus} if gpus > 1 else {}))
    if r.approximate:  # what is written has a meaning there that no word has
        return ["quantization" if recipe.quantization is not None else "objective"]
    if r.table.name != target.table or r.blocks or r.method != _base(question.method, recipe):
        return ["method"]
    said = recipe_of(r)
    if said.objective.type != recipe.objective.type:  # whose head this one may not have
        return ["objective"]
    back = trained(question.model, question.method, said)
    again = Question(question.model, question.method, back).estimate()
    back = again.recipe
    known = () if recipe.trainer == NO_TRAINER else preset(recipe.trainer).defaults(question.method, recipe)
    usual = {row.word: row.value for row in known}
    lost = [
        row.name
        for row in ALL_WORDS
        if row.name not in ("trainer", "stack")
        and _shown(row, recipe) != _shown(row, back)
        and (_means(row, question.method, recipe) or _is_set(row, recipe, usual))
        and not (row.name == "target_modules" and _adapted(question, recipe) == _adapted(question, back))
    ]
    if (
        not lost and recipe.lora.target_modules == "all-linear"
    ):  # of which trainers make a list, without stacked experts
        same = again.trainable_parameters == question.estimate().trainable_parameters
        lost = [] if same else ["target_modules"]
    return lost


def _adapted(question: Question, recipe: Recipe) -> frozenset[str]:
    """The layers that get an adapter: all of them, or each by its name, may be the same ones."""
    root = build(question.model.config)
    chosen = selector(root, recipe.lora)
    return frozenset(name for name, module in root.walk() if chosen(name, module))


def _base(method: str, recipe: Recipe) -> str:
    """What a file says of a method: DoRA is a switch of LoRA, QLoRA a LoRA on four bits."""
    four = recipe.quantization is not None and recipe.quantization.type in ("nf4", "fp4")
    return "full" if method == "full" else "qlora" if four else "lora"


def _shown(row: Word, recipe: Recipe) -> Any:
    """The word's value as JSON; None in a group that is not there."""
    holder = recipe.holder(row)
    return None if holder is None else row.kind.shown(getattr(holder, row.field))


def _means(row: Word, method: str, recipe: Recipe) -> bool:
    if row.group == "quantization" and recipe.quantization is None and row.name != "quantization":
        return False
    return _unmet(row, method, recipe) is None


def _is_set(row: Word, recipe: Recipe, usual: Mapping[str, Any]) -> bool:
    """Was a word that means nothing here set all the same? `usual`: what the recipe's own trainer has."""
    if recipe.holder(row) is None:
        return False
    if recipe.quantization is None and row.name in recipe.idle_words:
        return True
    default = 2 * recipe.lora.rank if row.name == "alpha" else row.default
    return _shown(row, recipe) not in (default, usual.get(row.name, default))


def _unmet(row: Word, method: str, recipe: Recipe) -> Need | None:
    """Why the word means nothing here; None where it means something."""
    needs = (need for need in row.needs if need not in (NO_MEMORY, IN_PLACE))
    return next((need for need in needs if not need.holds(method, recipe)), None)


def _why_idle(name: str, method: str, recipe: Recipe) -> str:
    need = _unmet(ROWS[name], method, recipe) if name in ROWS else None
    return f" ({need.otherwise})" if need else ""


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value).lower()
