"""Apple's cut cross entropy: no logits, and unlike Liger's loss its gradients are made in backward.

Source: apple/ml-cross-entropy 25.1.1, cut_cross_entropy/cce.py (`LinearCrossEntropyFunction`), cce_backward.py
(`cce_backward_kernel`) and utils.py (`_build_flat_valids`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from loralens.core.architecture.losses import rows
from loralens.core.architecture.losses.costs import made_again
from loralens.core.architecture.losses.cross_entropy import Headed
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import ONE

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.tape.tape import Tape


def cut(t: Tape, root: Headed, hidden: Tensor, call: Call) -> Tensor:
    """Keeps the head's input, one number per labelled row and the vocabulary's mean logits.

    The kernel takes 16-bit input: float32 hidden states are cast to autocast's dtype first.
    """
    head, wanted = root.head, rows.labelled(call)
    if t.autocast is not None:
        hidden = ops.cast(t, hidden, t.autocast, "head input, cast")
    weight = t.parameter(head.weight)
    numel, dtype, width = hidden.numel, hidden.dtype, head.in_features
    weight_numel, weight_dtype, trains = weight.numel, head.weight.dtype, weight.node is not None
    places = t.new(wanted, "int64", 1, "places of labels")
    sums = t.new(wanted, "float32", 1, "logsumexp per row")
    means = t.new(ONE * head.out_features, "float32", 1, "mean logits of the vocabulary")
    t.end(t.new(wanted, "float32", 1, "loss per row"))
    loss = t.new(ONE, "float32", 1, "loss")

    def apply(g: Tensor) -> list[Tensor | None]:
        order = t.new(ONE * head.out_features, "int32", 1, "order of the vocabulary")
        of_input = t.new(numel, dtype, width, "gradient: head input", "temporaries")
        of_weight = t.new(weight_numel, dtype, width, "gradient: head weight", "temporaries") if trains else None
        locks = [t.new(each, "int32", 1, "locks of gradients") for each in (wanted, ONE * head.out_features)]
        t.end(*locks)
        if of_weight is None:
            t.end(order)
            return [of_input, None]
        if dtype != weight_dtype:
            of_weight = t.replace(
                of_weight, t.new(weight_numel, weight_dtype, width, "gradient: head weight", "temporaries")
            )
        t.end(order)
        return [of_input, of_weight]

    costs = partial(made_again, wanted * width, hidden, weight, head.out_features, 0, 0)  # logits stay in the kernel
    t.record("loss", [loss], [hidden, weight], [hidden, sums, places, means], apply, costs)
    t.end(sums, places, means)
    return loss
