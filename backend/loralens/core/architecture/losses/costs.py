"""What losses cost beside bytes: the head's product, those of its gradients, and the logits that kernels read and write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.tape.cost import Cost, Costs, moving
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import Size
from loralens.core.tape.work import product

if TYPE_CHECKING:
    from collections.abc import Sequence


def whole_loss(numel: Size, *, compiled: bool) -> Costs:
    """Cross entropy of so many logits in pieces: upcast, log-softmax, likelihood, and back; compiled, one kernel each way."""
    forward, backward = (2, 4) if compiled else (2 + 4 + 4 + 4, 4 + 4 + 4 + 4 + 4 + 2)
    return (moving(numel * forward, "logits"),), (moving(numel * backward, "logits"),)


def of_head(numel: Size, hidden: Tensor, weight: Tensor, vocabulary: int) -> tuple[Sequence[Cost], Sequence[Cost]]:
    """The head's product on so many elements of hidden states, and those of the gradients that are wanted."""
    assert isinstance(hidden.width, int)
    out = Tensor(None, numel * vocabulary // hidden.width, hidden.dtype, vocabulary)
    rows = Tensor(None, numel, hidden.dtype, hidden.width)
    first, more = product(out, rows, weight, numel * (2 * vocabulary), (True, weight.node is not None))
    return first or (), more or ()


def in_forward(hidden: Tensor, weight: Tensor, vocabulary: int) -> Costs:
    """Gradients are made in forward; backward scales them. Logits are read and written in 16 bits and in float32."""
    first, more = of_head(hidden.numel, hidden, weight, vocabulary)
    assert isinstance(hidden.width, int)
    logits = hidden.numel * vocabulary // hidden.width
    return (*first, *more, moving(logits * 14, "logits")), (moving(hidden.numel * 4, "logits"),)


def made_again(numel: Size, hidden: Tensor, weight: Tensor, vocabulary: int, forward: int, backward: int) -> Costs:
    """Logits are made in forward and again in backward; `forward`, `backward`: bytes that each of them moves beside products."""
    first, more = of_head(numel, hidden, weight, vocabulary)
    assert isinstance(hidden.width, int)
    logits = numel * vocabulary // hidden.width
    return (*first, moving(logits * forward, "logits")), (*first, *more, moving(logits * backward, "logits"))
