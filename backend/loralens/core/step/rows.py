"""Rows and samples: a trainer may count pairs, whose two rows go through the model together.

The walk counts rows as its micro batch. What it found is then said in the recipe's own count.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from loralens.core.objectives.table import objective_of
from loralens.core.tape.size import MONOMIALS, Size

if TYPE_CHECKING:
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.ledger import Ledger, Moment
    from loralens.core.tape.validity import Validity
    from loralens.core.tape.work import WorkLog


def in_rows(recipe: Recipe) -> Recipe:
    """The recipe whose micro batch counts rows."""
    rows = objective_of(recipe).rows
    return recipe if rows == 1 else replace(recipe, micro_batch_size=recipe.micro_batch_size * rows)


def per_sample(size: Size, rows: int) -> Size:
    """A polynomial of rows as one of samples, each of so many rows."""
    if rows == 1:
        return size
    return Size([c * rows ** exponents[0] for c, exponents in zip(size, MONOMIALS, strict=True)])


def in_samples(ledger: Ledger, validity: Validity, work: WorkLog | None, rows: int) -> None:
    """Say a finished walk in samples."""
    if rows == 1:
        return

    def of(moment: Moment) -> Moment:
        entries = {entry: per_sample(size, rows) for entry, size in moment.entries.items()}
        return replace(moment, total=per_sample(moment.total, rows), entries=entries)

    ledger.moments = [of(moment) for moment in ledger.moments]
    ledger.points = [replace(point, first=of(point.first), last=of(point.last)) for point in ledger.points]
    validity.in_samples(rows)
    for done in work.every() if work is not None else ():
        done.flops, done.bytes = per_sample(done.flops, rows), per_sample(done.bytes, rows)
