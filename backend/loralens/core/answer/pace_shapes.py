"""A step's pace, as JSON. The API documents these very types."""

from __future__ import annotations

from typing import Annotated, TypedDict


class TransferPace(TypedDict):
    """What one GPU sends over one dimension of the mesh in a step, as time. Of a pipeline: the slowest stage."""

    over: Annotated[str, "dp_replicate, dp_shard, cp, tp, pp, ep or hpz."]
    way: Annotated[str, "waited: the step stands still; ring: beside attention; hidden: beside all computing."]
    between_machines: bool
    bytes_per_second: float
    seconds: Annotated[float, "If nothing hid it; `exchange.waited` has what is waited for of all of them."]


class Exchange(TypedDict):
    """What `parts.communication` is made of, in seconds of a step."""

    waited: Annotated[float, "For transfers: what nothing hides of them."]
    sharding: Annotated[float, "What sharding adds beside its transfers: copies into and out of buffers, hooks."]


class StepSeconds(TypedDict):
    """One optimizer step's time on all cards together."""

    expected: float
    low: Annotated[float, "Four of five published runs that had no part in fitting lie between low and high."]
    high: float
    parts: Annotated[dict[str, float], "Where the seconds go; they add up to `expected`."]
    basis: Annotated[str, "fitted: on published runs of this card; class: the card's rate is a guess by its class."]
    transfers: list[TransferPace]
    exchange: Exchange
    range: Annotated[bool, "The processor sets the pace: read low and high, not one number."]


class TokensPerSecond(TypedDict):
    """Tokens a second of all cards together."""

    expected: float
    low: float
    high: float


class PhaseSeconds(TypedDict):
    """One phase of an iteration."""

    phase: Annotated[
        str, "As the phases of memory are called; `sync`: weights handed over; `other`: between GPUs, loader and loop."
    ]
    expected: float
    low: float
    high: float


class Span(TypedDict):
    """A number with its band."""

    expected: float
    low: float
    high: float


class IterationPace(TypedDict):
    """What repeats: a step; with a rollout, one generation and every step that learns from it."""

    steps: Annotated[float, "Optimizer steps of one iteration."]
    samples: Annotated[int, "Of all cards together: completions, pairs or rows."]
    at_once: Annotated[
        int | None,
        "Sequences that a card generates at the same time; null: nothing generates, or its time is not known.",
    ]
    seconds: Span
    samples_per_hour: Span
    phases: Annotated[list[PhaseSeconds], "They add up to `seconds`."]


class StepPace(TypedDict):
    """All of it."""

    step_seconds: StepSeconds
    tokens_per_second: TokensPerSecond
    iteration: IterationPace
