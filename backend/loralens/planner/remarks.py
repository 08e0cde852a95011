"""What is to be said of the asked words beside an answer that has several recipes: once, and only what holds for each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.answer.remarks import idle_words, is_set
from loralens.core.question.recipe import WORD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loralens.core.answer.estimate import Estimate
    from loralens.core.answer.shapes import IdleWords
    from loralens.core.question.recipe import Recipe


def idle_in_all(found: Sequence[Estimate], asked: Recipe) -> list[IdleWords]:
    """The words that `asked` sets and that change nothing in any of the estimates, with the first one's reason."""
    if not found:
        return []
    first, *others = (idle_words(one.plan, one.recipe) for one in found)
    kept = [{name for row in rows for name in row["words"]} for rows in others]
    rows: list[IdleWords] = []
    for row in first:
        names = [name for name in row["words"] if is_set(WORD[name], asked) and all(name in idle for idle in kept)]
        rows += [{"words": names, "reason": row["reason"]}] if names else []
    return rows


def remarks_of_all(found: Sequence[Estimate]) -> list[str]:
    """The remarks that all of the estimates have."""
    if not found:
        return []
    first, *others = (one.remarks() for one in found)
    return [remark for remark in first if all(remark in said for said in others)]
