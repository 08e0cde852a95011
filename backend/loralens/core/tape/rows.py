"""What a row of `derivatives` is, and how a plain operator follows from its row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import Size
from loralens.core.tape.tape import Tape

RESULT: Final = "result"


def like(t: Tape, numel: Size, dtype: str, width: int | Size, label: str) -> Tensor:
    """A temporary of backward; in the head and the loss it counts as part of the logits."""
    return t.new(numel, dtype, width, label, "logits" if t.section == "logits" else "temporaries")


class Derivative:
    """An operator in PyTorch's table, and what it keeps for each of its gradients.

    `name` is its name there. `keeps` has an entry per differentiable input: the tensors that the formula of this input's
    gradient names. Sizes, dtypes and numbers that a formula names take no memory on the device and stand in no row.
    `left_out`: tensors that a formula names and we do not book, with the reason beside the row.
    """

    __slots__ = ("_needed_by", "keeps", "left_out", "name")

    def __init__(self, name: str, keeps: Mapping[str, str], *, left_out: str = "") -> None:
        self.name = name
        self.keeps = {wanted: tuple(names.split()) for wanted, names in keeps.items()}
        self.left_out = tuple(left_out.split())
        self._needed_by: dict[str, list[str]] = {}
        for wanted, names in self.keeps.items():
            for each in names:
                self._needed_by.setdefault(each, []).append(wanted)

    def kept(self, /, **operands: Tensor | None) -> list[Tensor | None]:
        """What the wanted gradients need, in the order given; None in place of what only others would need."""
        found: list[Tensor | None] = []
        for name, operand in operands.items():
            if name not in self._needed_by:
                continue
            needed = None
            for wanted in self._needed_by[name] if operand is not None else ():
                asks = operands.get(wanted)
                if asks is not None and asks.node is not None:
                    needed = operand
                    break
            found.append(needed)
        return found


class Plain(Derivative):
    """An operator of one tensor, whole in its row: `keeps` is what its one gradient needs, `self` or `result`.

    Its gradient is a new tensor of the input's size, or the incoming one itself where it `passes`. `view`: the result lies
    in the input's storage. Calling it walks it.
    """

    __slots__ = ("_result", "_self", "passes", "view")

    def __init__(self, name: str, keeps: str = "", *, passes: bool = False, view: bool = False) -> None:
        super().__init__(name, {"self": keeps})
        self._self, self._result = keeps == "self", keeps == RESULT
        self.passes, self.view = passes, view

    def __call__(
        self,
        t: Tape,
        x: Tensor,
        label: str,
        *,
        numel: Size | None = None,
        dtype: str | None = None,
        width: int | Size | None = None,
    ) -> Tensor:
        """The result, of x's size, dtype and last dimension unless others are given."""
        source, own, last = x.numel, x.dtype, x.width
        if self._self:
            t.saving((x,), (x,))
        numel, dtype, width = numel or source, dtype or own, width or last
        out = Tensor(x.storage, numel, dtype, width) if self.view else t.new(numel, dtype, width, label)
        if x.node is not None or t.counts:
            saved = (x,) if self._self else (out,) if self._result else ()
            if self.passes:
                t.record(label, (out,), (x,), saved, Tensor.view)
            else:
                t.record(label, (out,), (x,), saved, lambda g: like(t, source, own, last, f"gradient: {label}"))
        return out
