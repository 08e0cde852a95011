"""The course's printed figures beside exact ones, as JSON. The API documents these very types."""

from __future__ import annotations

from typing import Annotated, TypedDict

from loralens.core.texts import Both


class Exact(TypedDict):
    """What the calculator says in place of a printed figure."""

    value: float | None
    unit: str
    text: Both
    regime: Annotated[str, "Which model and set-up the value is for."]
    regime_text: Both
    basis: Annotated[str, "computed, or not measured."]


class CourseNumber(TypedDict):
    """One printed figure of the course."""

    id: str
    what: Annotated[Both, "What it is a figure of."]
    printed: str
    printed_value: float | None
    rule: str
    formula: str
    substituted: str
    formula_text: Both
    substituted_text: Both
    reproduced: Annotated[float | None, "What the rule gives, rounded as it was printed."]
    reproduced_unrounded: float | None
    unit: str
    is_reproduced: bool
    exact: Exact
    verdict: str
    verdict_text: Both
    text: Both


class CourseAnswer(TypedDict):
    """`GET /api/course-numbers`."""

    rows: list[CourseNumber]
