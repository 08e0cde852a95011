"""Pipeline parallelism: a rank has some layers, and several micro batches are under way at once.

How many depends on the schedule and the rank; what each of them holds is what one forward pass leaves behind. A rank before
the last one ends with hidden states, whose gradient it receives.

Source: torch 2.13 distributed/pipelining/stage.py (buffers for what is received are made for all micro batches at the start).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from loralens.core.architecture.causal import Root
from loralens.core.architecture.decoder import CausalDecoder
from loralens.core.architecture.stack import walk_stack
from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.partition.schedules import schedule_of
from loralens.core.question.precision import ITEM_BYTES
from loralens.core.tape.graph import LEAF, Node, Tensor
from loralens.core.tape.size import TOKENS, Size

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.question.parallelism import Parallelism
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.tape import Tape

FIRST: Final = 0


def stages(p: Parallelism) -> int:
    """How many pieces the layers are cut into."""
    return p.pp * p.stages_per_gpu


def pieces_of(count: int, p: Parallelism, rank: int) -> dict[int, list[int]]:
    """A rank's pieces, and the numbers of the layers in each; the first pieces have one more where they do not divide.

    Raises:
        InvalidInput: fewer layers than pieces.
    """
    pieces = stages(p)
    if count < pieces:
        raise InvalidInput(
            f"{count} layers do not fill {pieces} stages",
            field="parallelism.pp",
            hint=f"try pp={max(1, count // p.stages_per_gpu)}",
        )
    least, more = divmod(count, pieces)
    starts = [piece * least + min(piece, more) for piece in range(pieces + 1)]
    own = schedule_of(p).pieces(p, rank)
    return {piece: list(range(starts[piece], starts[piece + 1])) for piece in own}


def layers_of(count: int, p: Parallelism, rank: int) -> list[int]:
    """Numbers of the layers that a rank has, piece by piece."""
    return [layer for layers in pieces_of(count, p, rank).values() for layer in layers]


def under_way(p: Parallelism, micro_batches: int, rank: int) -> int:
    """Forward passes of a piece whose backward has not ended when the rank is fullest; of all the rank's pieces together."""
    return max(each.whole + each.halves for each in schedule_of(p).waiting(p, micro_batches, rank))


def splits(recipe: Recipe) -> bool:
    """Does the rank run backward in two halves? The first piece of all never does: nothing waits for its input's gradient."""
    p = recipe.parallelism
    schedule = schedule_of(p)
    return p.pp > 1 and schedule.splits and any(piece > 0 for piece in schedule.pieces(p, p.pipeline_rank or 0))


def halves_waiting(recipe: Recipe) -> int:
    """Passes whose input's gradient is made and whose weights' gradients are not, at most."""
    p = recipe.parallelism
    many = schedule_of(p).waiting(p, recipe.gradient_accumulation_steps, p.pipeline_rank or 0)
    return max(each.halves for each in many)


def made_before(recipe: Recipe) -> int:
    """1 where gradients are there already when the rank is fullest, 0 where the first backward makes them then."""
    p = recipe.parallelism
    rank = p.pipeline_rank or 0
    micro_batches = recipe.gradient_accumulation_steps
    return int(micro_batches * p.stages_per_gpu > under_way(p, micro_batches, rank))


def leaves_whole(recipe: Recipe) -> bool:
    """Does the schedule tell FSDP2 to reduce nothing, and to free nothing after a backward, until the last micro batch?

    Source: torch 2.13 distributed/pipelining/stage.py, `_PipelineStageBase.backward_maybe_with_nosync`.
    """
    p = recipe.parallelism
    return p.strategy == "fsdp2" and p.schedule != "sequential" and recipe.gradient_accumulation_steps > 1


def walked(recipe: Recipe) -> Recipe:
    """The recipe with as many micro batches as one walk takes to meet what a stage holds when it is fullest."""
    if not leaves_whole(recipe):
        return replace(recipe, gradient_accumulation_steps=1 + made_before(recipe))
    p = replace(recipe.parallelism, accumulate_unsynchronized=True, reshard_after_forward=False)
    return replace(recipe, gradient_accumulation_steps=2, parallelism=p)


def check(recipe: Recipe) -> None:
    """Raises `InvalidInput` where torch's schedule refuses the recipe, or does with it what is not modelled."""
    p, schedule = recipe.parallelism, schedule_of(recipe.parallelism)
    schedule.check(p, recipe.gradient_accumulation_steps)
    if schedule.splits and p.strategy == "megatron":
        raise InvalidInput(
            f"Megatron Core has no {p.schedule} schedule: torch has",
            field="parallelism.schedule",
            hint="try schedule=interleaved, or strategy=fsdp2",
        )
    if schedule.splits and recipe.compile:
        raise InvalidInput(
            f"torch's {p.schedule} schedule takes no compiled stages: it cuts backward in two",
            field="parallelism.schedule",
            hint="try compile=false, or schedule=1f1b",
        )
    if schedule.splits and recipe.gradient_checkpointing:
        raise InvalidInput(
            f"under torch's {p.schedule} schedule both halves of backward run a checkpointed layer again, and keep what it made: "
            "more than without checkpointing, and not modelled",
            field="gradient_checkpointing",
            hint="try gradient_checkpointing=false, or schedule=1f1b",
        )


def candidates(p: Parallelism) -> list[int]:
    """Ranks of which one is the fullest: the first two, and the last; any one where halves of backward wait."""
    if schedule_of(p).splits:
        return list(range(p.pp))
    return sorted({0, min(1, p.pp - 1), p.pp - 1})


def why_full(p: Parallelism, rank: int) -> str:
    """What a stage has that others have not."""
    schedule = schedule_of(p)
    if stages(p) - 1 in schedule.pieces(p, rank):
        return "it has the head, the logits and the loss"
    if schedule.splits and rank > FIRST:
        return "most of what its halves of backward keep waits there"
    return "it has the embedding and most micro-batches under way" if rank == FIRST else "its layers are the most"


def cut(root: Root, p: Parallelism) -> None:
    """Leave one rank's layers, with the embedding on the first one and norm, head and loss on the last.

    Raises:
        UnsupportedArchitecture: a training framework's own model code, or a family that is no plain decoder.
        InvalidInput: fewer layers than stages.
    """
    if root.framework not in ("", "megatron"):
        raise UnsupportedArchitecture(
            f"pipeline stages are not modelled for {root.framework}'s own model code",
            field="parallelism.pp",
            hint=f"try pp=1, or a trainer other than {root.framework}",
        )
    if (
        not isinstance(root, CausalDecoder)
        or (root.tied and root.framework != "megatron")  # whose last stage has a copy of the embedding
        or not root.in_stages
        or root.media
        or root.task
        or len(root.stacks()) != 1
    ):
        raise UnsupportedArchitecture(
            "pipeline stages are modelled for decoders with one stack of layers and a language model's head of its own",
            field="parallelism.pp",
            hint="try pp=1",
        )
    rank = p.pipeline_rank or 0
    _, stack = root.stacks()[0]
    kinds: list[Hashable] = [stack.kinds[layer] for layer in layers_of(len(stack), p, rank)]
    stack.remake(stack.make, kinds)
    own = schedule_of(p).pieces(p, rank)
    part = RankLayers(root, p.tp if p.sequence_parallel else 1, first=FIRST in own, last=stages(p) - 1 in own)
    if part.last and p.schedule != "sequential":
        root.head.around = _holding(root.head.around)
    root.part = part
    if not part.first:
        root.leave_embedding()
    if not part.last:
        delattr(root.inner, root.names.norm)
        for name in [name for name, part in vars(root).items() if part is root.head]:
            delattr(root, name)


def _holding(inside: Callable[..., Any] | None) -> Callable[..., Tensor]:
    """The schedule keeps the last stage's result until its backward is over."""

    def around(t: Tape, run: Callable[..., Tensor], x: Tensor) -> Tensor:
        logits = run(t, x) if inside is None else inside(t, run, x)
        t.handed.hold(logits)
        return logits

    return around


class RankLayers:
    """Forward of one rank's layers, in place of the whole model's. `parts`: into which the residual stream is cut."""

    def __init__(self, root: CausalDecoder, parts: int, *, first: bool, last: bool) -> None:
        self.first, self.last = first, last
        self._root, self._parts = root, parts

    def run(self, t: Tape, call: Call, *, checkpointing: bool) -> Tensor:
        """From tokens, or from received hidden states, to the loss or to hidden states."""
        root = self._root
        if self.first:
            hidden = root.embed(t, call)
        else:
            hidden = received(t, root.s.hidden, self._parts, _stream(call.recipe))
            root.masks(t, call)
            root.tables(t, hidden, call)
        for name, stack in root.stacks():
            hidden = walk_stack(t, name, stack.layers, hidden, call, checkpointing=checkpointing)
        if not self.last:
            call.after()
            return hidden
        hidden = root.finish(t, hidden)
        after = call.after()
        t.section = "logits"
        loss = root.loss(t, hidden, after)
        t.section = "activations"
        return loss


def received(t: Tape, width: int, parts: int, dtype: str) -> Tensor:
    """Hidden states from the rank before, whose gradient goes back there."""
    hidden = t.new(TOKENS * width // parts, dtype, width, "hidden states, received")
    hidden.node = Node(LEAF, "hidden states, received", "activations", (), [], _sent_back)
    return hidden


def _stream(recipe: Recipe) -> str:
    """The dtype of hidden states between stages: that in which FSDP2 computes, or the weights'."""
    return recipe.parallelism.gather_dtype or recipe.weights_dtype


def message(recipe: Recipe, hidden: int) -> Size:
    """What a micro batch sends to the next stage, cut along the sequence where the residual stream is."""
    p = recipe.parallelism
    return TOKENS * (hidden * ITEM_BYTES[_stream(recipe)]) // (p.tp if p.sequence_parallel else 1)


def _sent_back(gradient: Tensor) -> tuple[Any, ...]:
    return ()
