"""Values that a mask chooses, taken out and put back: a mask becomes numbers of places, which are larger than the values.

Source: aten/src/ATen/native/IndexingUtils.h (`expandTensors`) and cuda/Indexing.cu (`computeLinearIndex`,
`index_put_with_sort_kernel`), torch 2.13.
"""

from __future__ import annotations

from typing import Final

from loralens.core.tape import derivatives
from loralens.core.tape.graph import Tensor
from loralens.core.tape.rows import like
from loralens.core.tape.size import Size
from loralens.core.tape.tape import Tape

ADDED: Final = 3  # int64 of each place where values are added up: its address, a wrapped number and their product


def taken(t: Tape, x: Tensor, mask: Tensor, numel: Size, width: int, dimensions: int, label: str) -> Tensor:
    """`x[mask]`, of which `numel` values are true; backward adds the gradient into zeros of x's size."""
    out = t.new(numel, x.dtype, width, label)
    _places(t, numel, dimensions, label)
    size = x.numel, x.dtype, x.width

    def apply(g: Tensor) -> Tensor:
        gradient = like(t, *size, f"gradient: {label}")
        _places(t, numel, dimensions + ADDED, f"gradient: {label}")
        return gradient

    t.record(label, [out], [x], derivatives.INDEX.kept(self=x, indices=mask), apply)
    return out


def put(t: Tape, into: Tensor, mask: Tensor, values: Tensor, dimensions: int, label: str) -> Tensor:
    """`into[mask] = values`, in into's own storage; backward zeroes a copy of its gradient there, and takes the values'."""
    out = Tensor(into.storage, into.numel, into.dtype, into.width)
    _places(t, values.numel, dimensions, label)
    whole, part = ((x.numel, x.dtype, x.width, x.node is not None) for x in (into, values))

    def apply(g: Tensor) -> list[Tensor | None]:
        found: list[Tensor | None] = [None, None]
        if whole[3]:
            zeros = like(t, *part[:3], f"gradient: {label}, zeros")
            found[0] = like(t, *whole[:3], f"gradient: {label}")
            _places(t, part[0], dimensions, f"gradient: {label}")
            t.end(zeros)
        if part[3]:
            found[1] = like(t, *part[:3], f"gradient: {label}, the places alone")
            _places(t, part[0], dimensions, f"gradient: {label}")
        return found

    t.record(label, [out], [into, values], derivatives.INDEX_PUT.kept(self=into, indices=mask, values=values), apply)
    return out


def _places(t: Tape, values: Size, numbers: int, label: str) -> None:
    t.end(t.new(values * numbers, "int64", 1, f"{label}: places", "temporaries"))
