"""The shape of a plan, as the API serves it and the page evaluates it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from loralens.api.schemas import ModelSummary
from loralens.api.shape import Recipe, Shape

Variable = Literal["micro_batch_size", "sequence_length", "rank"]
Category = Literal["weights", "adapter", "gradients", "optimizer_state", "activations", "logits", "temporaries"]
Polynomial = list[int]


class PlanRanges(Shape):
    """From and to which value of each variable a plan holds, both included."""

    micro_batch_size: tuple[int, int]
    sequence_length: tuple[int, int]
    rank: tuple[int, int]


class PlanRemainders(Shape):
    """Modulus and remainder, for variables at whose other values the plan does not hold."""

    micro_batch_size: tuple[int, int] | None = None
    sequence_length: tuple[int, int] | None = None
    rank: tuple[int, int] | None = None


class PlanParameters(Shape):
    """Counts, not bytes."""

    total: Polynomial
    trainable: Polynomial


class PlanStorage(Shape):
    """What is written to disk."""

    checkpoint_bytes: Polynomial
    adapter_file_bytes: Polynomial


class PlanMoment(Shape):
    """A moment that is the peak of its phase for some values of the variables."""

    phase: str
    label: str
    bytes: list[Polynomial] = Field(description="One polynomial for each of `categories`.")


class PlanSegment(Shape):
    """A stretch of the timeline: `repeat` moments that change evenly from `first` to `last`."""

    phase: str
    label: str
    repeat: int
    first: list[Polynomial]
    last: list[Polynomial]


class Plan(Shape):
    """One method's memory as polynomials: the sum over `monomials` of coefficient × variables to their exponents."""

    model: ModelSummary
    method: str
    regime: str = Field(description="The precision regime in words.")
    recipe: Recipe
    assumptions: list[str]
    variables: list[Variable]
    valid: PlanRanges
    remainders: PlanRemainders
    monomials: list[list[int]] = Field(description="Each the exponents of `variables`.")
    categories: list[Category]
    parameters: PlanParameters
    storage: PlanStorage
    host_bytes: Polynomial
    moments: list[PlanMoment]
    timeline: list[PlanSegment]


class PlanAnswer(Shape):
    """Answer of /api/plan."""

    plans: list[Plan]
