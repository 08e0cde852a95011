"""The tensors of a step as JSON, which the page draws. The API documents these very types."""

from __future__ import annotations

from typing import Annotated, TypedDict

from loralens.core.answer.plan_shapes import Category
from loralens.core.question.shapes import ModelSummary, RecipeWords


class TensorKind(TypedDict):
    """What many tensors have in common."""

    name: str
    category: Category
    bytes: int
    formula: str


class RestingTensors(TypedDict):
    """What is there before the step begins: weights, adapter, optimizer states. Lists of one length."""

    kind: list[int]
    place: list[int]
    trains: list[bool]


class StepTensors(TypedDict):
    """What the step allocates, in order. Lists of one length; `death` is null for what is alive at its end."""

    kind: list[int]
    place: list[int]
    birth: Annotated[list[int], "Events before it: an allocation or a release is one."]
    death: list[int | None]


class Rename(TypedDict):
    """A tensor that is called otherwise from an event on: a buffer of backward becomes a parameter's gradient."""

    tensor: int
    event: int
    kind: int


class Mark(TypedDict):
    """A stretch of the model is behind, after so many events."""

    phase: str
    label: str
    event: int


class TensorLives(TypedDict):
    """The tensors; numbers of kinds and places are places in these lists."""

    places: list[str]
    kinds: list[TensorKind]
    resting: RestingTensors
    tensors: StepTensors
    renames: list[Rename]
    marks: list[Mark]
    events: int
    peak_bytes: int


class Lifetimes(TensorLives):
    """One method's step."""

    method: str
    recipe: RecipeWords


class LifetimesAnswer(TypedDict):
    """Answer of /api/lifetimes."""

    model: ModelSummary
    lifetimes: list[Lifetimes]
