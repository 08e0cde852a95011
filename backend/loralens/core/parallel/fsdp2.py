"""PyTorch's FSDP2 (`fully_shard`): units whose weights are gathered into a flat buffer and copied out of it.

A gathered unit is there twice for a while: as the collective's flat result, and as the weights that were copied out of it.
In forward the flat result lives until the next unit's is copied out; in backward the next unit's flat result is asked for
as soon as a unit begins. A unit's gradients are copied into one flat input of the reduction, which stays until the next
unit has run backward.

Sources: torch 2.13 distributed/fsdp/_fully_shard: _fsdp_param_group.py (`unshard`, `wait_for_unshard`, `pre_backward`,
`post_backward`, `_backward_prefetch`), _fsdp_state.py (the root is not resharded, and what no gradient passed runs its
`post_backward` when all is over), _fsdp_collectives.py. Units as accelerate 1.15 `fsdp2_prepare_model`, transformers 5.23
distributed/fsdp.py and torchtitan choose them: layers; embedding; norm and head together, which stay gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Final

from loralens.core.parallel.sharded import GATHERING, LAYERS, ROOT, SHARDING, Sharded
from loralens.core.parallel.strategy import Setting
from loralens.core.parallel.units import Unit
from loralens.core.tape.ledger import Storage
from loralens.core.tape.size import ZERO, Size, share

if TYPE_CHECKING:
    from loralens.core.tape.graph import Ends, Tensor, Weight
    from loralens.core.tape.tape import Tape

FLAT: Final = "flat result of a unit's all-gather"
CAST: Final = "shards, cast to be gathered"
REDUCED: Final = "flat input of a unit's reduce-scatter"
WHOLE: Final = "whole gradients of the micro-batches before"
SHARE: Final = "gradients, this GPU's share"
OUTPUT, OUTPUT_CAST, DIVIDED = "reduced gradients", "reduced gradients, cast", "gradients, divided"
REDUCING: Final = 2  # a stream of its own
COPIES: Final = "dp_replicate"  # a dimension of the mesh
FIRST, LAST, ALL = "embedding", "norm and head", "root"


class Fsdp2(Sharded):
    """Weights, gradients and states divided weight by weight."""

    prepares_k_bit = False  # TRL and transformers leave it out (`is_sharded_qlora`)
    # _fsdp_collectives.py: `foreach_all_gather`, `foreach_reduce`; what is copied out is asked for by the first stream
    streams: ClassVar = {FLAT: GATHERING, CAST: GATHERING, OUTPUT: REDUCING, OUTPUT_CAST: REDUCING, DIVIDED: REDUCING}

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        p = setting.recipe.parallelism
        self.weights = self.gradients = self.states = p.sharding
        self.words = p
        same = (None, p.gather_dtype or setting.recipe.weights_dtype)
        # else gradients are reduced when their unit is done, or put aside in another dtype
        self.adds_in_place = not self.gathers or (self._whole and p.reduce_dtype in same)
        self._held: dict[int, str] = {}  # dtypes at rest
        self._forward_flat: Storage | None = None
        self._flat: dict[str | int, Storage | None] = {}  # asked for ahead
        self._copied: dict[str | int, Storage] = {}
        self._kept_shards: dict[str | int, Storage] = {}
        self._reducing: Storage | None = None
        self._reduced: list[Storage] = []
        self._order: list[Unit] = []
        self._ends: dict[str, Unit] = {}
        self._layer: Unit | None = None
        self._padding = 0  # rows beside the rank, where that is a first dimension
        self._first_layer = 0
        self._last = False  # is it the last one of its stack?
        self._reached = False  # has a gradient come out of the first layer?

    @property
    def gathers(self) -> bool:
        """Also one GPU alone copies its shards where they are cast or on the host."""
        return self.weights > 1 or self.host.weights

    @contextmanager
    def in_use(self, weights: Sequence[Weight]) -> Iterator[None]:
        """Weights are computed with in the dtype of the policy."""
        dtype = self.words.gather_dtype
        cast = [weight for weight in weights if dtype and self.gathers and not weight.packing]
        self._held = {id(weight): weight.dtype for weight in cast}
        for weight in cast:
            weight.dtype = dtype or weight.dtype
        yield
        for weight in cast:
            weight.dtype = self._held[id(weight)]

    @property
    def _whole(self) -> bool:
        """Do whole gradients wait for the last micro batch?"""
        accumulates = self.setting.recipe.gradient_accumulation_steps > 1
        return accumulates and self.words.accumulate_unsynchronized and self.gathers

    def accumulated(self, gradient: Size, weight: Weight) -> Size:
        """Shards, unless whole ones wait."""
        return ZERO if self._whole else super().accumulated(gradient, weight)

    def states_held(self, states: Size, counters: Size, parts: int | None = None) -> Size:
        """Every shard has a step counter of its own."""
        return share(states - counters, parts or self.states) + counters

    # -- forward ------------------------------------------------------------------------------------------------

    def before_forward(self, t: Tape, root: Ends, placed: Sequence[tuple[Weight, int]]) -> list[Storage]:
        """What runs first is gathered: the embedding, or all that belongs to no layer."""
        if not self.gathers:
            return []
        if any(not isinstance(weight.shape[0], int) for weight, _ in placed):
            self._padding = -t.validity.remainder("rank", self.weights) % self.weights
        if self._whole:
            for weight, count in placed:
                t.ledger.book(self._unit(ALL, [weight]).whole(self.words.reduce_dtype) * count, "gradients", WHOLE)
        if self.words.units == "layers+ends" and root.apart:
            self._ends = {FIRST: self._unit(FIRST, root.first), LAST: self._unit(LAST, root.last)}
            self._gather(t, self._ends[FIRST])
        else:
            self._ends = {ALL: self._unit(ALL, root.all)}
            self._gather(t, self._ends[ALL])
        return []

    def set_aside(self, t: Tape) -> None:
        """The units outside of the layers (verl 0.7.0 workers/fsdp_workers.py: `reshard()`)."""
        if self.gathers:
            self._release_forward(t)
            t.end(*(self._copied.pop(unit.name, None) for unit in self._ends.values()))

    def bring_back(self, t: Tape) -> None:
        """What runs first."""
        if self.gathers:
            self._gather(t, next(iter(self._ends.values())))

    def before_layer(self, t: Tape, weights: Sequence[Weight], *, ahead: bool) -> Storage | None:
        """The layer's own; the embedding's are freed."""
        if not self.gathers:
            return None
        if self._layer is None:
            self._first_layer = t.layer
            if FIRST in self._ends:
                self._leave(t, self._ends[FIRST])
        self._layer = self._unit(t.layer, weights)
        self._gather(t, self._layer)
        self._last = not ahead
        return None

    def behind_layer(self, t: Tape, weights: Sequence[Weight], hidden: Tensor, *, ahead: bool) -> Tensor:
        """The layer's weights go; a node brings them back before its backward."""
        if not self.gathers or self._layer is None:
            return hidden
        unit, before = self._layer, self._order[-1] if self._order else None
        self._leave(t, unit)
        hidden = self._node(t, hidden, lambda: self._enter(t, unit, before))
        if self._last and LAST in self._ends:
            tail = self._ends[LAST]
            self._gather(t, tail)
            hidden = self._node(t, hidden, lambda: self._passed(t, tail, 0))
        return hidden

    def part(self, t: Tape, run: Callable[..., Tensor], given: Sequence[Tensor], weights: Sequence[Weight]) -> Tensor:
        """A unit inside of a layer's: gathered for its own forward and backward, also when the layer is run again."""
        if not self.gathers:
            return run(*given)
        number, again = t.layer, t.refilling is not None
        unit = Unit(f"experts of {number}", weights, weights[0].shared_by or self.weights, number=number)
        if again and unit.name in self._copied:  # backward has begun with it, so it is there and stays
            return run(*given)
        self._gather(t, unit)
        result = run(*self._behind(t, given, lambda: self._passed(t, unit, number)))
        if again:
            self._release_forward(t)
            return result
        before = self._order[-1] if self._order else None
        self._leave(t, unit)
        return self._node(t, result, lambda: self._enter(t, unit, before))

    def behind_head(self, t: Tape, logits: Tensor) -> Tensor:
        """Before the head runs backward, the last layer is asked for."""
        if self.words.loss_parallel and self.words.tp > 1:
            self._release_forward(t)  # that loss is computed outside of the model, whose forward is over
        if not self.gathers or self.words.units == "layers":
            return logits
        return self._node(t, logits, lambda: self._ask(t, self._order[-1]))

    # -- backward -----------------------------------------------------------------------------------------------

    def after_forward(self, t: Tape) -> None:
        """The root's forward is over, which lets the last flat result go."""
        self._release_forward(t)

    def before_backward(self, t: Tape) -> None:
        """As a unit the root asks for the last layer at once."""
        if self.gathers and self.words.units == "layers" and self._order:
            self._ask(t, self._order[-1])

    def after_layer(self, t: Tape, weights: Sequence[Weight], number: int) -> None:
        """Its weights go, its gradients are reduced."""
        if not self.gathers:
            super().after_layer(t, weights, number)
            return
        self._passed(t, self._unit(number, weights), number)
        self._reached = number == self._first_layer

    def after_backward(self, t: Tape) -> None:
        """What no gradient has passed: the root first, then the others in the order of forward."""
        if not self.gathers:
            super().after_backward(t)
            return
        first = self._ends.get(FIRST)
        if first is not None and self._reached:  # else its output needs no gradient, and it stays asked for in vain
            self._enter(t, first, None)
        for unit in [*self._ends.values(), *self._order]:
            if unit.name in self._copied or self._waits(t, unit):
                self._passed(t, unit, unit.number)

    def done(self, t: Tape) -> None:
        """What the reductions held goes."""
        t.end(self._reducing, *self._reduced, *self._flat.values(), *self._copied.values(), *self._kept_shards.values())
        self._release_forward(t)
        self._reducing, self._layer = None, None
        for held in (self._flat, self._copied, self._kept_shards, self._ends):
            held.clear()
        self._reduced.clear()
        self._order.clear()

    # -- units --------------------------------------------------------------------------------------------------

    def _unit(self, name: str | int, weights: Sequence[Weight]) -> Unit:
        common = [weight for weight in weights if weight.shared_by is None]
        return Unit(name, common, self.weights, self._padding, name if isinstance(name, int) else 0)

    def _node(self, t: Tape, tensor: Tensor, act: Callable[[], None]) -> Tensor:
        outside = tensor.view()

        def apply(gradient: Tensor) -> Tensor:
            act()
            return gradient.view()

        t.record("unit", [outside], [tensor], [], apply)
        return outside

    def _behind(self, t: Tape, given: Sequence[Tensor], act: Callable[[], None]) -> Sequence[Tensor]:
        """A node behind several tensors, which runs when all their gradients are there."""
        outside = [tensor.view() for tensor in given]

        def apply(*gradients: Tensor) -> list[Tensor]:
            act()
            return [gradient.view() for gradient in gradients]

        t.record("unit", outside, list(given), [], apply)
        return outside

    def _keeps(self, unit: Unit) -> bool:
        return unit.name in (ALL, LAST) or self.words.reshard_after_forward is False

    def _gathered(self, t: Tape, unit: Unit) -> Storage | None:
        """The flat result; while it is made there are this GPU's shards in the dtype of the policy, or from the host."""
        if unit.parts == 1:
            return None
        shards = unit.shards(self._held)
        if self.host.weights:
            shards = share(unit.bytes, unit.parts)
        cast = Storage(t.ledger, shards, "temporaries", CAST) if any(shards) else None
        flat = Storage(t.ledger, unit.bytes, "temporaries", FLAT)
        t.end(cast)
        once = self._whole and self.words.pp > 1  # what stays gathered from one micro batch to the next
        t.traffic.sent("all_gather", unit.bytes, SHARDING, unit.number, once=once)
        return flat

    def _copy_out(self, t: Tape, unit: Unit) -> None:
        if unit.parts == 1:
            unit.copy_alone(t, self._held)
        label = LAYERS if unit.number else ROOT
        self._copied[unit.name] = Storage(t.ledger, unit.bytes, "temporaries", label)
        t.end(self._kept_shards.pop(unit.name, None))

    def _gather(self, t: Tape, unit: Unit) -> None:
        """In forward."""
        flat = self._flat.pop(unit.name, None) or self._gathered(t, unit)
        self._copy_out(t, unit)
        self._release_forward(t)  # a local variable of `wait_for_unshard` holds it that long
        self._forward_flat = flat

    def _release_forward(self, t: Tape) -> None:
        t.end(self._forward_flat)
        self._forward_flat = None

    def _leave(self, t: Tape, unit: Unit) -> None:
        """A unit has run forward."""
        self._order.append(unit)
        if self._keeps(unit):
            return
        among = self.words.reshard_after_forward
        if among is not True:
            kept = Storage(t.ledger, share(unit.bytes, among), "temporaries", "weights kept among fewer GPUs")
            self._kept_shards[unit.name] = kept
        t.end(self._copied.pop(unit.name))

    def _ask(self, t: Tape, unit: Unit) -> None:
        """Ask for a unit ahead of its backward."""
        if unit.name not in self._flat and unit.name not in self._copied:
            self._flat[unit.name] = self._gathered(t, unit)

    def _enter(self, t: Tape, unit: Unit, before: Unit | None) -> None:
        """A unit begins backward; `before`: the one that ran before it in forward."""
        if unit.name not in self._copied:
            self._ask(t, unit)
            flat = self._flat.pop(unit.name)
            self._copy_out(t, unit)
            t.end(flat)
        if before is not None:
            self._ask(t, before)

    # -- gradients ----------------------------------------------------------------------------------------------

    def _waits(self, t: Tape, unit: Unit) -> bool:
        own = {id(weight) for weight in unit.weights}
        return any(key[0] in own for key in t.gradients)

    def _passed(self, t: Tape, unit: Unit, number: int) -> None:
        """A unit has run backward: its weights go, the last reduction's input goes, its gradients are reduced."""
        t.end(self._copied.pop(unit.name, None))
        t.end(self._reducing)
        self._reducing = None
        keys = [key for weight in unit.weights if (key := (id(weight), number)) in t.gradients]
        if not keys and not (self.adds_in_place and any(unit.whole(None))):
            return
        if self._whole:  # this micro batch's are added to those that wait
            for key in keys:
                t.gradients.pop(key).let_go()
        size = unit.gradients(self.words.reduce_dtype)
        self._reducing = Storage(t.ledger, size, "gradients", REDUCED)
        if unit.parts > 1:
            t.traffic.sent("reduce_scatter", size, SHARDING, unit.number, once=self._whole)
        if self.words.dp_replicate > 1:
            t.traffic.sent("all_reduce", share(size, unit.parts), COPIES, unit.number, once=self._whole)
        last = None
        if self._whole:
            t.ledger.release(unit.whole(self.words.reduce_dtype), "gradients", WHOLE)
            last = Storage(t.ledger, unit.last(self.words.reduce_dtype), "gradients", WHOLE)
        elif unit.parts > 1:  # a loop variable of `foreach_reduce` holds it
            last = t.gradients.pop(keys.pop())
        for key in keys if not self._whole else ():
            t.gradients.pop(key).let_go()
        self._keep(t, unit, last)

    def _keep(self, t: Tape, unit: Unit, last: Storage | None) -> None:
        """This GPU's share, cast to the weights' dtype at rest, stays, is added to the one before it, or goes to the host.

        `last`: the unit's last gradient, which goes when its reduction has returned.
        """
        reduced = share(unit.gradients(self.words.reduce_dtype), unit.parts)
        kept = unit.gradient_shards(self._held)
        output = Storage(t.ledger, reduced, "gradients", OUTPUT)
        if unit.parts == 1:  # nothing is reduced, but transformers sets a factor to divide by
            t.end(Storage(t.ledger, reduced, "gradients", DIVIDED))
        if reduced != kept:
            cast = Storage(t.ledger, kept, "gradients", OUTPUT_CAST)
            if self.words.dp_replicate > 1:
                self._reduced.append(output)
            else:
                t.end(output)
            output = cast
        if last is not None:
            last.let_go() if last.slots else last.release()
        t.end(output)
        accumulates = self.setting.recipe.gradient_accumulation_steps > 1 and not self.words.accumulate_unsynchronized
        if not (accumulates or self.host.states):
            t.ledger.book(kept, "gradients", SHARE)

    def assumptions(self) -> list[str]:
        """The units, the dtype that is computed in, and what waits."""
        if not self.gathers:
            return []
        p, recipe = self.words, self.setting.recipe
        apart = "FSDP2's units are the layers, the embedding, and the norm with the head, which stay gathered"
        root = (
            "FSDP2's units are the layers; all else is the root, which stays gathered, with its gradients whole until "
            "backward is over"
        )
        found = [root if p.units == "layers" else apart]
        if recipe.autocast is not None and p.gather_dtype == recipe.autocast:
            found.append(f"FSDP2 computes in {p.gather_dtype}: autocast finds nothing left to cast")
        if self._whole:
            found.append("whole gradients wait for the last micro-batch (set_requires_gradient_sync(False))")
        return found
