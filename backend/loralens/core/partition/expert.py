"""Expert parallelism: a rank has some of every layer's experts whole, and tokens travel to the experts that they chose.

All else is divided as it is without. A token's rows go to the ranks that own its experts and come back; how many a rank is
sent depends on the router, and an equal share of them is assumed: as many as it sends.

Source: transformers 5.23 distributed/expert_parallel.py (`AllToAllEP`, `MoEParamShard`), distributed/fsdp.py (the experts of
a layer are a unit of FSDP2 of their own, among the ranks that own the same ones).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from loralens.core.architecture.decoder import CausalDecoder
from loralens.core.architecture.moe import Experts
from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.partition.collectives import chunked, rejoined
from loralens.core.question.precision import ITEM_BYTES
from loralens.core.tape import ops
from loralens.core.tape.checkpoint import is_reentrant
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import ONE

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.architecture.module import Module
    from loralens.core.question.parallelism import Parallelism
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.tape import Tape

EXPERT: Final = "ep"  # a dimension of the mesh


def cut(root: Root, recipe: Recipe) -> None:
    """Leave one rank's experts in every layer.

    Raises:
        UnsupportedArchitecture: a family without stacked experts.
        InvalidInput: the experts do not divide, or a word that is not modelled beside.
    """
    p = recipe.parallelism
    found = [module for _, module in root.walk() if isinstance(module, Experts)]
    if not isinstance(root, CausalDecoder) or not found or root.framework or root.media or root.experts_in_turn:
        raise UnsupportedArchitecture(
            f"expert parallelism is modelled for decoders with stacked experts, not for {root.model_type or 'this family'}",
            field="parallelism.ep",
            hint="try ep=1 with strategy=fsdp2",
        )
    experts = found[0].sizes[2]
    if experts % p.ep:
        raise InvalidInput(
            f"{experts} experts do not divide among {p.ep} ranks",
            field="parallelism.ep",
            hint="try a divisor of the number of experts",
        )
    if is_reentrant(recipe):
        raise InvalidInput(
            "reentrant checkpointing is not modelled together with ep above 1: its second run sends every token again inside backward",
            field="parallelism.ep",
            hint="try checkpoint_reentrant=false",
        )
    for _, stack in root.stacks():
        stack.remake(partial(_made, stack.make, p))


def _made(make: Any, p: Parallelism, kind: Any) -> Module:
    layer: Module = make(kind)
    for _, module in layer.walk():
        if isinstance(module, Experts):
            _divide(module, p)
    return layer


def _divide(experts: Experts, p: Parallelism) -> None:
    for name, parameter in list(experts.own_parameters()):
        own = Parameter((experts.sizes[2] // p.ep, *parameter.shape[1:]))
        own.shared_by = p.expert_sharding
        setattr(experts, name, own)
    experts.divided = True
    experts.around = partial(_unit, experts, p)


def _unit(
    experts: Experts, p: Parallelism, t: Tape, run: Any, x: Tensor, weights: Tensor, numbers: Tensor, chosen: int
) -> Tensor:
    """The experts come and go by themselves, with all that happens to the tokens between."""
    if experts.adapter is not None or experts.down_proj.packing is not None:
        raise InvalidInput(
            "adapters on experts, and packed ones, with ep above 1: PEFT and bitsandbytes do not know experts that transformers divides",
            field="parallelism.ep",
            hint="try target_modules=q_proj,k_proj,v_proj,o_proj, or ep=1",
        )

    def inside(x: Tensor, weights: Tensor) -> Tensor:
        return _dispatched(experts, p, t, run, x, weights, numbers, chosen)

    return t.hooks.part(t, inside, (x, weights), experts.all_parameters())


def _dispatched(
    experts: Experts, p: Parallelism, t: Tape, run: Any, x: Tensor, weights: Tensor, numbers: Tensor, chosen: int
) -> Tensor:
    """Rows in the order of their experts go out and come back. Shapes: x (rows, hidden), weights (rows, chosen)."""
    dtype, hidden = x.dtype, experts.sizes[0]
    if p.tp > 1:  # the ranks that have the same tokens each take their part of them
        x, weights = (chunked(t, each, p.tp, label) for each, label in ((x, "tokens"), (weights, "router: weights")))
        numbers = t.local(
            t.new(numbers.numel // p.tp, numbers.dtype, chosen, "router: chosen experts, this rank's part")
        )
    rows = ops.divide(x.numel * chosen, hidden)
    order = t.local(t.new(rows, "int64", 1, "experts: order of the rows that are sent"))
    source = t.new(rows, "int64", 1, "experts: source of the rows that are sent")
    sent = ops.indexed(t, x, source, x.numel * chosen, hidden, "experts: rows that are sent")
    t.end(source)
    with t.temporary(rows, "int64", 1, "experts: counts"):
        t.traffic.sent("all_to_all", ONE * (experts.sizes[2] * ITEM_BYTES["int64"]), EXPERT, t.layer)
    received = _traded(t, sent, "rows")
    t.end(sent)
    own = t.local(t.new(rows, "int64", 1, "experts: numbers of the rows received"))
    ones = t.local(t.new(rows, received.dtype, 1, "experts: weights of the rows received"))
    result = run(t, t.local(received), ones, own, 1)
    returned = _traded(t, result, "results")
    placed = _placed(t, returned, order, "experts: results in token order")
    weighted = ops.mul(t, placed, weights, "experts: weighted")
    total = ops.total(t, weighted, "experts: sum", numel=x.numel)
    t.end(weighted)
    if p.tp > 1:
        total = rejoined(t, total, p.tp, "experts: sum")
    t.end(placed, returned, result)
    return ops.cast(t, total, dtype, "experts: result")


def _traded(t: Tape, x: Tensor, label: str) -> Tensor:
    """An all-to-all of as many rows as come back; so is its gradient."""
    out, made = t.result(x.numel, x.dtype, x.width, f"experts: {label}, traded")
    number, size = t.layer, (x.numel, x.dtype, x.width)
    if made:
        t.traffic.sent("all_to_all", x.numel * ITEM_BYTES[x.dtype], EXPERT, number)

    def apply(g: Tensor) -> Tensor:
        t.traffic.sent("all_to_all", g.numel * ITEM_BYTES[g.dtype], EXPERT, number)
        return t.new(*size, f"gradient: experts: {label}, traded", "temporaries")

    t.record("all-to-all", [out], [x], [], apply)
    return out


def _placed(t: Tape, x: Tensor, order: Tensor, label: str) -> Tensor:
    """Rows written where they belong; the gradient is read from there."""
    out = t.new(x.numel, x.dtype, x.width, label)
    size = (x.numel, x.dtype, x.width)
    t.record(label, [out], [x], [order], lambda g: t.new(*size, f"gradient: {label}", "temporaries"))
    return out
