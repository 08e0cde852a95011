"""A step's pace, as JSON. The API documents these very types."""

from __future__ import annotations

from typing import Annotated, TypedDict


class StepSeconds(TypedDict):
    """One optimizer step's time on all cards together."""

    expected: float
    low: Annotated[float, "Four of five published runs that had no part in fitting lie between low and high."]
    high: float
    parts: Annotated[dict[str, float], "Where the seconds go; they add up to `expected`."]
    basis: Annotated[str, "fitted: on published runs of this card; class: the card's rate is a guess by its class."]
    range: Annotated[bool, "The processor sets the pace: read low and high, not one number."]


class TokensPerSecond(TypedDict):
    """Tokens a second of all cards together."""

    expected: float
    low: float
    high: float


class StepPace(TypedDict):
    """The two together."""

    step_seconds: StepSeconds
    tokens_per_second: TokensPerSecond
