"""What a planner is asked: one model, one method, one recipe, and words of its own beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from loralens.core.answer.answers import model_object, read_body
from loralens.core.answer.estimate import Estimate, estimate_model
from loralens.core.errors import InvalidInput
from loralens.core.methods import METHODS
from loralens.core.question.model import Model
from loralens.core.question.recipe import Quantization, Recipe

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

    def model_dict(self) -> dict[str, Any]:
        """The contract's `model` object."""
        return model_object(self.model)

    def get(self, field: str) -> Any:
        """The value of a flat field (`rank` is inside `lora`)."""
        if field == "method":
            return self.method
        if field in _LORA:
            value = getattr(self.recipe.lora, field)
            return list(value) if isinstance(value, tuple) else value
        if field in _QUANTIZATION:
            return None if self._packing() is None else getattr(self._packing(), field)
        value = getattr(self.recipe, field)
        # The recipe keeps this word as text; outside it is false, true or "+lora".
        return {"none": False, "yes": True}.get(value, value) if field == "fused_kernels" else value

    def with_(self, field: str, value: Any) -> Question:
        """The same question with one field changed."""
        if field == "method":
            return replace(self, method=value)
        if field in _LORA:
            changed: dict[str, Any] = {field: tuple(value) if isinstance(value, list) else value}
            return replace(self, recipe=replace(self.recipe, lora=replace(self.recipe.lora, **changed)))
        packing = self._packing()
        if field in _QUANTIZATION and packing is not None:
            return replace(self, recipe=replace(self.recipe, quantization=replace(packing, **{field: value})))
        if field == "fused_kernels":
            value = {False: "none", True: "yes"}.get(value, value)
        return replace(self, recipe=replace(self.recipe, **{field: value}))

    def _packing(self) -> Quantization | None:
        """How the base is packed: QLoRA's is NF4 where the recipe names none."""
        return self.recipe.quantization or (Quantization() if self.method == "qlora" else None)


_LORA = frozenset({"rank", "dropout", "target_modules", "adapter_dtype", "use_dora", "modules_to_save"})
_QUANTIZATION = frozenset({"double_quant", "prepare_kbit"})


def read_question(body: Any, own: Iterable[str] = ()) -> tuple[Question, dict[str, Any]]:
    """The question of a body, and the planner's own words in it.

    Raises:
        InvalidInput: the body is no object, several methods are named, or something in it is unknown or malformed.
        UnknownModel: nothing has that name.
    """
    if not isinstance(body, Mapping):
        raise InvalidInput(
            f"the request must be an object, got {type(body).__name__}",
            field="body",
            hint='{"model": "7B", "gpu": "rtx-4090"}',
        )
    allowed = SUBJECT | set(own)
    for name in body:
        if name not in allowed:
            raise InvalidInput(
                f"unknown field {str(name)[:60]!r}", field=str(name)[:60], hint=f"allowed: {', '.join(sorted(allowed))}"
            )
    subject = {name: body[name] for name in body if name in SUBJECT}
    if "methods" not in subject:
        subject.setdefault("method", "lora")
    model, methods, recipe, _ = read_body(subject)
    if len(methods) != 1:
        raise InvalidInput("one method at a time", field="method", hint=f"one of {', '.join(METHODS)}")
    return Question(model, methods[0], recipe), {name: body[name] for name in body if name not in SUBJECT}
