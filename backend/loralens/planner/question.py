"""What a planner is asked: one model, one method, one recipe, and words of its own beside them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from loralens.core.answer.answers import model_object, on_card, read_body
from loralens.core.answer.estimate import Estimate, estimate_model
from loralens.core.answer.trainer import trained
from loralens.core.errors import InvalidInput
from loralens.core.methods import METHODS
from loralens.core.question.bodies import request_body
from loralens.core.question.model import Model
from loralens.core.question.quantization import Quantization
from loralens.core.question.recipe import WORD, Recipe

if TYPE_CHECKING:
    from loralens.core.question.shapes import ModelSummary


SUBJECT = frozenset({"model", "config", "method", "methods", "recipe"})


@dataclass(frozen=True, slots=True)
class Question:
    """A training step that a planner may change one thing of."""

    model: Model
    method: str
    recipe: Recipe

    def estimate(self) -> Estimate:
        """Its memory."""
        return estimate_model(self.model, self.method, self.recipe)

    def model_dict(self) -> ModelSummary:
        """The contract's `model` object."""
        return model_object(self.model, self.estimate().plan.base_parameters)

    def get(self, field: str) -> Any:
        """The value of a flat word (`rank` is inside `lora`), or of `method`."""
        return self.method if field == "method" else self._packed_for(field).get(field)

    def with_(self, field: str, value: Any) -> Question:
        """The same question with one word changed."""
        if field == "method":
            return replace(self, method=value)
        return replace(self, recipe=self._packed_for(field).with_(field, value))

    def _packed_for(self, field: str) -> Recipe:
        """The recipe; where a packing's word is meant, with QLoRA's own packing named."""
        open_ = self.method == "qlora" and self.recipe.quantization is None
        if open_ and WORD[field].group == "quantization":
            return replace(self.recipe, quantization=Quantization())
        return self.recipe


def read_question(body: Any, own: Iterable[str] = ()) -> tuple[Question, dict[str, Any]]:
    """The question of a body, and the planner's own words in it.

    Raises:
        InvalidInput: the body is no object, several methods are named, or something in it is unknown or malformed.
        UnknownModel: nothing has that name.
    """
    body = request_body(body, sorted(SUBJECT | set(own)), '{"model": "7B", "gpu": "rtx-4090"}')
    subject = {name: body[name] for name in body if name in SUBJECT}
    if "methods" not in subject:
        subject.setdefault("method", "lora")
    model, methods, recipe, _ = read_body(subject)
    if len(methods) != 1:
        raise InvalidInput("one method at a time", field="method", hint=f"one of {', '.join(METHODS)}")
    recipe = on_card(recipe, body.get("recipe"), body.get("gpu"))
    return Question(model, methods[0], trained(model, methods[0], recipe)), {
        name: body[name] for name in body if name not in SUBJECT
    }
