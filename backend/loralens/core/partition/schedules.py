"""Schedules of a pipeline: which pieces a rank has, in what order it runs them, and what waits meanwhile.

A piece's forward pass waits for its backward. A zero-bubble schedule cuts backward in two: the gradient of the input goes back
at once, and those of the weights are made later, when the rank would be idle; until then a pass keeps all it kept, and the
gradients that arrived at its weights besides. The first piece of all has no input gradient: its whole backward waits.

Sources: torch 2.13 distributed/pipelining/schedules.py (`ScheduleGPipe`, `Schedule1F1B`, `_get_1f1b_rank_ops`,
`ScheduleInterleavedZeroBubble`, `ScheduleZBVZeroBubble`), `_backward.py` (`stage_backward_input` retains the graph). The
schedules are those of Qi et al. 2023, arXiv:2401.10241. `sequential` is accelerate's `device_map`: one micro batch on one card
after another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loralens.core.errors import InvalidInput

if TYPE_CHECKING:
    from loralens.core.question.parallelism import Parallelism

FORWARD: Final = "F"
INPUT: Final = "I"  # the gradient of a piece's input
WEIGHTS: Final = "W"  # those of its weights, made later
Action = tuple[str, int]  # what is done, and of which piece


@dataclass(frozen=True, slots=True)
class Waiting:
    """Forward passes of pieces that a rank holds at one instant, by how far they are.

    `whole`: no backward yet; `halves`: of these the input's gradient is made, and those of the weights are not. Of them
    `last_whole` and `last_halves` are of the piece with the head. `sent_back`: gradients of inputs, which a split backward leaves
    with the buffers of what was received.
    """

    whole: int
    halves: int = 0
    last_whole: int = 0
    last_halves: int = 0
    sent_back: int = 0

    def below(self, other: Waiting) -> bool:
        """Does the other one hold as much? Half done holds more than not begun, and a pass more than an input's gradient."""
        return (
            self.halves <= other.halves
            and self.whole + self.halves <= other.whole + other.halves
            and self.last_halves <= other.last_halves
            and self.last_whole + self.last_halves <= other.last_whole + other.last_halves
            and self.whole + self.halves + self.sent_back <= other.whole + other.halves + other.sent_back
        )


class Schedule:
    """In what order a rank runs its pieces. `p`: how the model is cut; `rank`: of the pipeline."""

    splits = False  # is backward cut in two?

    def pieces(self, p: Parallelism, rank: int) -> list[int]:
        """Which pieces a rank has: every so many, as ranks follow each other."""
        return list(range(rank, p.pp * p.stages_per_gpu, p.pp))

    def check(self, p: Parallelism, micro_batches: int) -> None:
        """Raises `InvalidInput` where the library refuses the numbers."""

    def waiting(self, p: Parallelism, micro_batches: int, rank: int) -> list[Waiting]:
        """The instants that can be the fullest: none holds less of everything than another."""
        raise NotImplementedError


class GPipe(Schedule):
    """All forward passes, then all backward passes."""

    def waiting(self, p: Parallelism, micro_batches: int, rank: int) -> list[Waiting]:
        """All micro batches."""
        return [Waiting(micro_batches)]


class OneByOne(Schedule):
    """Forward and backward in turn, once the last rank has something to send back (1F1B)."""

    def waiting(self, p: Parallelism, micro_batches: int, rank: int) -> list[Waiting]:
        """As many as there are ranks from here on."""
        return [Waiting(min(p.pp - rank, micro_batches))]


class Sequential(Schedule):
    """One micro batch on one card after another."""

    def waiting(self, p: Parallelism, micro_batches: int, rank: int) -> list[Waiting]:
        """One."""
        return [Waiting(1)]


class Interleaved(Schedule):
    """1F1B over several pieces of each rank, by rounds of micro batches."""

    hops = 2  # forward passes more for every rank further from the last one

    def check(self, p: Parallelism, micro_batches: int) -> None:
        """Rounds must be equal."""
        rounds, of_round = _rounds(p, micro_batches)
        if rounds * of_round != micro_batches:
            raise InvalidInput(
                f"{micro_batches} micro-batches do not divide into {rounds} rounds of {p.pp} stages ({p.schedule})",
                field="gradient_accumulation_steps",
                hint=f"try gradient_accumulation_steps={-(-micro_batches // p.pp) * p.pp}",
            )

    def warm_up(self, p: Parallelism, micro_batches: int, rank: int) -> int:
        """Forward passes before the first backward's."""
        _, of_round = _rounds(p, micro_batches)
        asked = (p.stages_per_gpu - 1) * of_round + self.hops * (p.pp - 1 - rank)
        return min(asked, micro_batches * p.stages_per_gpu)

    def waiting(self, p: Parallelism, micro_batches: int, rank: int) -> list[Waiting]:
        """The warm-up's, and the one that runs."""
        return [Waiting(min(self.warm_up(p, micro_batches, rank) + 1, micro_batches * p.stages_per_gpu))]


class ZeroBubble(Interleaved):
    """Interleaved, a forward pass less for every rank; the weights' gradients wait for as many turns as ranks lie before."""

    splits, hops = True, 1

    def waiting(self, p: Parallelism, micro_batches: int, rank: int) -> list[Waiting]:
        """Read off the order of actions."""
        return _fullest(self.order(p, micro_batches, rank), p)

    def order(self, p: Parallelism, micro_batches: int, rank: int) -> Iterator[Action]:
        """What the rank does; of many equal rounds a few."""
        rounds, of_round = _rounds(p, micro_batches)
        many = min(rounds, 2 * p.stages_per_gpu + 4) * of_round * p.stages_per_gpu
        before = min(self.warm_up(p, micro_batches, rank), many)
        own = self.pieces(p, rank)

        def forward(turn: int) -> Action:
            return FORWARD, own[turn // of_round % len(own)]

        backward = [own[-1 - turn // of_round % len(own)] for turn in range(many)]
        yield from map(forward, range(before))
        done = 0
        for turn, piece in enumerate(backward):
            if before + turn < many:
                yield forward(before + turn)
            yield INPUT, piece
            if turn >= rank:
                yield WEIGHTS, backward[done]
                done += 1
        for piece in backward[done:]:
            yield WEIGHTS, piece


class ZeroBubbleV(Schedule):
    """Two pieces on each rank, which lie on it as the legs of a V: the first rank has the first and the last piece of all."""

    splits = True

    def pieces(self, p: Parallelism, rank: int) -> list[int]:
        """One from the beginning, one from the end."""
        return [rank, 2 * p.pp - 1 - rank]

    def waiting(self, p: Parallelism, micro_batches: int, rank: int) -> list[Waiting]:
        """Read off the order of actions."""
        return _fullest(self.order(p, micro_batches, rank), p)

    def order(self, p: Parallelism, micro_batches: int, rank: int) -> Iterator[Action]:
        """What the rank does; of many micro batches a few, and none that is not there."""
        asked = min(micro_batches, 4 * p.pp)
        counts: dict[Action, int] = {}
        for action in self._turns(p, max(2 * p.pp - 1, asked), rank):
            number = counts[action] = counts.get(action, 0) + 1
            if number <= asked:
                yield action

    def _turns(self, p: Parallelism, many: int, rank: int) -> Iterator[Action]:
        down, up = self.pieces(p, rank)
        after = p.pp - rank
        back_up, back_down = ((INPUT, up), (WEIGHTS, up)), ((INPUT, down), (WEIGHTS, down))
        yield from [(FORWARD, down)] * (2 * after - 1)
        yield from [(FORWARD, up), (FORWARD, down)] * rank
        yield from [(FORWARD, up), *back_up] * after
        ahead, behind = 2 * after - 1 + rank, rank + after  # forward passes of both pieces
        while behind < ahead or ahead < many:
            if ahead < many:
                yield FORWARD, down
                ahead += 1
            yield from (*back_down, (FORWARD, up), *back_up)
            behind += 1
        yield from [(INPUT, down), (INPUT, up)] * rank
        yield from back_down * after
        yield from [(WEIGHTS, up)] * rank
        yield from [(WEIGHTS, down)] * rank


def _rounds(p: Parallelism, micro_batches: int) -> tuple[int, int]:
    """Rounds of micro batches, and how many are in one."""
    rounds = max(1, micro_batches // p.pp)
    return rounds, micro_batches // rounds


def _fullest(order: Iterator[Action], p: Parallelism) -> list[Waiting]:
    last = p.pp * p.stages_per_gpu - 1
    whole: dict[int, int] = {}
    halves: dict[int, int] = {}
    found: list[Waiting] = []
    sent_back = 0
    for what, piece in order:
        if what == FORWARD:
            whole[piece] = whole.get(piece, 0) + 1
        elif what == INPUT and piece > 0:
            whole[piece] -= 1
            halves[piece] = halves.get(piece, 0) + 1
        elif what == WEIGHTS:
            (halves if piece > 0 else whole)[piece] -= 1
        sent_back += what == INPUT and piece > 0
        now = Waiting(sum(whole.values()), sum(halves.values()), whole.get(last, 0), halves.get(last, 0), sent_back)
        if not any(now.below(other) for other in found):
            found = [other for other in found if not other.below(now)] + [now]
    return found


SCHEDULES: Final[dict[str, Schedule]] = {
    "gpipe": GPipe(),
    "1f1b": OneByOne(),
    "interleaved": Interleaved(),
    "sequential": Sequential(),
    "zero_bubble": ZeroBubble(),
    "zero_bubble_v": ZeroBubbleV(),
}


def schedule_of(p: Parallelism) -> Schedule:
    """The schedule that a recipe names."""
    return SCHEDULES[p.schedule]
