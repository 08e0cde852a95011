"""The rows of hidden states that a loss works on, in pieces: how many, and where a plan of them holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loralens.core.tape.cost import Costs
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import BATCH, ONE, TOKENS, Size

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.tape.tape import Tape

A_VIEW: Final[Costs] = ((), None)


def labelled(call: Call) -> Size:
    """Positions whose next token has a label, where the others are left out: all but each sample's last, unless it is said."""
    said = call.recipe.labelled_tokens
    if said is not None and call.validity.exceeds("sequence_length", said):
        return BATCH * said
    return TOKENS - BATCH


def number(call: Call, rows: Size) -> int:
    """How many rows that are in this recipe."""
    recipe = call.recipe
    return rows.at(recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank)


def at_most(call: Call, rows: Size, limit: int) -> Size:
    """The rows, or `limit` of them if there are more; the plan holds for batches and lengths on the same side."""
    recipe, above = call.recipe, number(call, rows) > limit
    for name, value in (("micro_batch_size", recipe.micro_batch_size), ("sequence_length", recipe.sequence_length)):
        call.validity.exceeds(name, value - 1 if above else value)
    return ONE * limit if above else rows


def pinned(call: Call, rows: Size) -> int:
    """The rows as a number: the plan then holds for this batch and length only."""
    call.validity.pinned_tokens()
    return number(call, rows)


def selected(t: Tape, hidden: Tensor, rows: Size, label: str) -> Tensor:
    """`hidden[mask]`: a copy of some rows, and the two numbers of each; backward adds into zeros of the whole size.

    Shapes: (tokens, h) to (rows, h).
    """
    numel, dtype, width = hidden.numel, hidden.dtype, hidden.width
    index = t.new(rows * 2, "int64", 1, f"{label}: their places")
    out = t.new(rows.times(ONE * _plain(width)), dtype, width, label)
    t.record(label, [out], [hidden], [index], lambda g: t.new(numel, dtype, width, f"gradient: {label}", "temporaries"))
    return out


def apart(t: Tape, x: Tensor, count: int, label: str) -> list[Tensor]:
    """`x.chunk(count)` along the rows: views; one node waits for all gradients and puts them together."""
    numel, dtype, width = x.numel, x.dtype, x.width
    each = numel // count
    outs = [Tensor(x.storage, each, dtype, width) for _ in range(count - 1)]
    outs.append(Tensor(x.storage, numel - each * (count - 1), dtype, width))
    t.record(
        label, outs, [x], [], lambda *g: t.new(numel, dtype, width, f"gradient: {label}", "temporaries"), lambda: A_VIEW
    )
    return outs


def part(t: Tape, x: Tensor, rows: Size, label: str) -> Tensor:
    """`x[a:b]` along the rows: a view whose gradient fills a zeroed tensor of x's size."""
    numel, dtype, width = x.numel, x.dtype, x.width
    out = Tensor(x.storage, rows.times(ONE * _plain(width)), dtype, width)
    t.record(
        label, [out], [x], [], lambda g: t.new(numel, dtype, width, f"gradient: {label}", "temporaries"), lambda: A_VIEW
    )
    return out


def _plain(width: int | Size) -> int:
    assert isinstance(width, int)
    return width
