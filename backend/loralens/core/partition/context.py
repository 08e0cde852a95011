"""Context parallelism: every rank has its part of the sequence; attention alone meets the whole of it.

The walk goes with the rank's own length, and the sizes are then said of the whole one. A ring gathers keys and values of
all ranks for each attention; Ulysses trades the sequence's part for a part of the heads, and back.

Sources: torch 2.13 distributed/tensor/experimental/_context_parallel/_attention.py (rotation by all-gather, results merged
in float32); DeepSpeed-Ulysses, arXiv:2309.14509, section 3.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from loralens.core.architecture.decoder import CausalDecoder, SelfAttention
from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.question.precision import ITEM_BYTES
from loralens.core.tape import ops
from loralens.core.tape.cost import ATTENTION
from loralens.core.tape.ledger import Storage
from loralens.core.tape.size import MONOMIALS, VARIABLES, ZERO, Size

if TYPE_CHECKING:
    from collections.abc import Callable

    from loralens.core.architecture.causal import Root
    from loralens.core.architecture.module import Module
    from loralens.core.question.parallelism import Parallelism
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.tape import Tape
    from loralens.core.tape.validity import Validity
    from loralens.core.tape.work import WorkLog

_SEQUENCE = VARIABLES.index("sequence_length")
CONTEXT = "cp"


def own_length(recipe: Recipe) -> Recipe:
    """The recipe as one rank sees it.

    Raises:
        InvalidInput: the sequence does not divide.
    """
    parts = recipe.parallelism.cp
    if recipe.sequence_length % parts:
        raise InvalidInput(
            f"sequence_length {recipe.sequence_length} does not divide into {parts} parts",
            field="parallelism.cp",
            hint=f"try sequence_length={-(-recipe.sequence_length // parts) * parts}",
        )
    return replace(recipe, sequence_length=recipe.sequence_length // parts)


def of_whole_length(size: Size, parts: int) -> Size:
    """A size in the rank's own length, said in the whole one's; rounded up coefficient by coefficient."""
    return Size(
        [-(-c // parts ** exponents[_SEQUENCE]) if c else 0 for c, exponents in zip(size, MONOMIALS, strict=True)]
    )


def lengthen(work: WorkLog, parts: int) -> None:
    """Work that was counted in the rank's own length, said in the whole one's.

    Attention was counted within the rank's part, and meets the whole sequence: `parts` times as much, every rank alike
    (assumption: the parts are balanced, as torch's head-tail order and Ulysses' heads make them).
    """
    for (_, cause, _), done in work.done.items():
        times = parts if cause == ATTENTION else 1
        done.flops, done.bytes = (of_whole_length(size * times, parts) for size in (done.flops, done.bytes))


def widened(validity: Validity, parts: int) -> None:
    """The lengths for which a walk of the rank's own length holds, said of the whole one."""
    low, high = validity.ranges["sequence_length"]
    validity.ranges["sequence_length"] = [low if low == 1 else (low - 1) * parts + 1, high * parts]


def cut(root: Root, p: Parallelism) -> None:
    """Let attention meet the whole sequence.

    Raises:
        UnsupportedArchitecture: a family whose layers are not the usual ones.
        InvalidInput: Ulysses, and the heads do not divide.
    """
    found = [module for _, module in root.walk() if isinstance(module, SelfAttention)]
    if not isinstance(root, CausalDecoder) or not found or root.framework or root.media:
        raise UnsupportedArchitecture(
            f"context parallelism is modelled for decoders of Llama's kind, not for {root.whose}",
            field="parallelism.cp",
            hint="try cp=1",
        )
    s = found[0].s
    if p.context == "ulysses" and (s.heads % p.cp or s.kv_heads % p.cp):
        raise InvalidInput(
            f"{s.heads} heads and {s.kv_heads} key-value heads do not divide into {p.cp} ranks",
            field="parallelism.context",
            hint="try context=ring",
        )
    for _, stack in root.stacks():
        stack.remake(partial(_made, stack.make, p))


def _made(make: Callable[[Any], Module], p: Parallelism, kind: Any) -> Module:
    layer = make(kind)
    for _, module in layer.walk():
        if isinstance(module, SelfAttention):
            module.across = _ulysses(p.cp) if p.context == "ulysses" else _ring(p.cp)
    return layer


def _ring(parts: int) -> Any:
    def across(kernel: Any, t: Tape, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Keys and values of all ranks, and the result in float32, while attention runs; in backward their gradients too."""
        whole = (_bytes(k) + _bytes(v)) * parts
        merged = q.numel * (2 * ITEM_BYTES["float32"])
        number = t.layer
        held: list[Storage] = []

        def leave(gradient: Tensor) -> Tensor:
            t.end(*held)
            return gradient.view()

        def enter(gradient: Tensor) -> Tensor:
            t.traffic.sent("all_gather", whole, CONTEXT, number)
            for _ in range(parts):
                t.traffic.sent("all_to_all", (k_numel + v_numel) * ITEM_BYTES["float32"], CONTEXT, number)
            rotating = (k_numel + v_numel) * (2 * ITEM_BYTES["float32"])
            held.append(Storage(t.ledger, whole + rotating, "temporaries", "ring attention: keys and values"))
            return gradient.view()

        k_numel, v_numel = k.numel, v.numel
        inside = q.view()
        t.record("ring", [inside], [q], [], leave)
        t.traffic.sent("all_gather", whole, CONTEXT, number)
        gathered = Storage(t.ledger, whole + merged, "temporaries", "ring attention: keys and values")
        out = ops.copy(t, kernel(t, inside, k, v, mask), "attention: merged result")
        t.end(gathered)
        outside = out.view()
        t.record("ring", [outside], [out], [], enter)
        return outside

    return across


def _ulysses(parts: int) -> Any:
    def across(kernel: Any, t: Tape, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Query, key, value and result change places: as large as before."""
        q, k, v = (_traded(t, x, f"attention {name}") for x, name in ((q, "query"), (k, "key"), (v, "value")))
        return _traded(t, kernel(t, q, k, v, mask), "attention result")

    return across


def _traded(t: Tape, x: Tensor, label: str) -> Tensor:
    out = t.new(x.numel, x.dtype, x.width, f"{label}, traded")
    number, size = t.layer, (x.numel, x.dtype, x.width)
    t.traffic.sent("all_to_all", _bytes(x), CONTEXT, number)

    def apply(g: Tensor) -> Tensor:
        t.traffic.sent("all_to_all", g.numel * ITEM_BYTES[g.dtype], CONTEXT, number)
        return t.new(*size, f"gradient: {label}, traded", "temporaries")

    t.record("all-to-all", [out], [x], [], apply)
    return out


def _bytes(x: Tensor) -> Size:
    return ZERO + x.numel * ITEM_BYTES[x.dtype]
