"""A plan as JSON, which the page evaluates. The API documents these very types."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypedDict

from loralens.core.question.shapes import ModelSummary, Pair, RecipeWords

Variable = Literal["micro_batch_size", "sequence_length", "rank"]


Category = Literal["weights", "adapter", "gradients", "optimizer_state", "activations", "logits", "temporaries"]


Polynomial = list[int]


class PlanRanges(TypedDict):
    """From and to which value of each variable a plan holds, both included."""

    micro_batch_size: Pair
    sequence_length: Pair
    rank: Pair


class PlanRemainders(TypedDict):
    """Modulus and remainder, for variables at whose other values the plan does not hold."""

    micro_batch_size: NotRequired[Pair]
    sequence_length: NotRequired[Pair]
    rank: NotRequired[Pair]


class PlanParameters(TypedDict):
    """Counts, not bytes."""

    total: Polynomial
    trainable: Polynomial


class PlanStorage(TypedDict):
    """What is written to disk."""

    checkpoint_bytes: Polynomial
    adapter_file_bytes: Polynomial


class PlanMoment(TypedDict):
    """A moment that is the peak of its phase for some values of the variables."""

    phase: str
    label: str
    bytes: Annotated[list[Polynomial], "One polynomial for each of `categories`."]


class PlanSegment(TypedDict):
    """A stretch of the timeline: `repeat` moments that change evenly from `first` to `last`."""

    phase: str
    label: str
    repeat: int
    first: list[Polynomial]
    last: list[Polynomial]


class PlanNumbers(TypedDict):
    """What a plan is made of: the sum over `monomials` of coefficient × variables to their exponents."""

    variables: list[Variable]
    valid: PlanRanges
    remainders: PlanRemainders
    monomials: Annotated[list[list[int]], "Each the exponents of `variables`."]
    categories: list[Category]
    parameters: PlanParameters
    storage: PlanStorage
    host_bytes: Polynomial
    moments: list[PlanMoment]
    timeline: list[PlanSegment]


class Plan(PlanNumbers):
    """One method's memory as polynomials: the sum over `monomials` of coefficient × variables to their exponents."""

    model: ModelSummary
    method: str
    regime: Annotated[str, "The precision regime in words."]
    recipe: RecipeWords
    assumptions: list[str]


class PlanAnswer(TypedDict):
    """Answer of /api/plan."""

    plans: list[Plan]
