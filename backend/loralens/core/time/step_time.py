"""The time of a step as a formula: seconds on the card as a polynomial in batch, length and rank, beside the processor's.

While the card works, the processor launches: whichever takes longer decides, and where both take about as long, neither hides
the other wholly. Everything else, the optimizer's step and fixed costs, comes one after the other.

Leaves out: loading data, logging and saving; clocks that fall as a card gets hot; what a sliding window spares the flash
kernel. Checked against published runs: docs/accuracy-time.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from loralens.core.tape.cost import ATTENTION, CAUSES, UPDATE
from loralens.core.tape.size import MONOMIALS, Size, monomial_values
from loralens.core.time.communication import HookCalls, shards_leave
from loralens.core.time.floats import added, fourth_root_of_fourth_powers
from loralens.core.time.links import hidden_by
from loralens.core.time.polynomial import Polynomial, plus, seconds_of, value_of
from loralens.core.time.rates import Constants, Speed, known, speed_of
from loralens.core.time.transfers import Transfer, TransferTimes, between_of, transfers_of
from loralens.core.time.update import update_kernels, update_of

if TYPE_CHECKING:
    from loralens.core.catalogue import Gpu
    from loralens.core.question.recipe import Recipe
    from loralens.core.step.held import Held
    from loralens.core.step.optimizer import Trained
    from loralens.core.tape.traffic import Traffic
    from loralens.core.tape.work import WorkLog

SHARPNESS: Final = 4
"""Of the larger of two times: (a^4 + b^4)^(1/4), 19% above either where they are equal. An assumption."""
GPTQ_KERNELS: Final = 15
"""Torch operations that unpack a GPTQ weight (auto_gptq's `qlinear_cuda_old`: shifts, masks, zeros, scales); counted roughly."""
RECOMPUTATION, COMMUNICATION, BUBBLE, WAITING, FIXED = "recomputation", "communication", "bubble", "waiting", "fixed"
OTHER: Final = "other"
PARTS: Final = (*CAUSES, RECOMPUTATION, COMMUNICATION, BUBBLE, WAITING, FIXED)


@dataclass(frozen=True, slots=True)
class StepTime:
    """One step's seconds, gradient accumulation included, by part; the parts add up to it."""

    seconds: float
    parts: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Stage:
    """One phase of a micro-batch: seconds on the card, and the processor's to launch it."""

    card: Polynomial
    launch_seconds: float


@dataclass(frozen=True, slots=True)
class TimePlan:
    """A step's time as coefficients. `card`: seconds on the card of one micro-batch, by part."""

    card: Mapping[str, Polynomial]
    launch_seconds: float  # the processor's for one micro-batch, hooks included
    optimizer: Polynomial
    optimizer_seconds: float  # launches
    accumulation: int
    between: TransferTimes
    hides: float  # share of a micro-batch behind which transfers hide
    sharded: bool
    loops: int  # of the training loop in a step: a pipeline's schedule takes all micro-batches at once
    constants: Constants
    stages: Mapping[str, Stage]  # one micro-batch's phases
    serial: bool = False  # the device launches its own kernels: nothing hides
    transfers: tuple[Transfer, ...] = ()  # that `between` sums

    def at(self, batch: float, sequence: float, rank: float, host: float = 1.0) -> StepTime:
        """The time at one setting, or at arrays of them; `host`: how much slower the processor launches than the constants' one."""
        return self.set(batch, sequence, rank).step(host)

    def set(self, batch: float, sequence: float, rank: float) -> SetTime:
        """The formula at one setting, for any processor.

        Args:
            batch: samples of a micro-batch.
            sequence: tokens of a sample.
            rank: of the adapters.
        """
        values = monomial_values(batch, sequence, rank)  # type: ignore[arg-type]
        card = {name: value_of(polynomial, values) for name, polynomial in self.card.items()}
        between, update = self.between.at(values), value_of(self.optimizer, values)
        return SetTime(self, values, card, added(card.values()), between, update)

    def to_dict(self) -> dict[str, Any]:
        """The formula as JSON: what a page evaluates."""
        return {
            "monomials": [list(exponents) for exponents in MONOMIALS],
            "card_seconds": {name: list(polynomial) for name, polynomial in self.card.items()},
            "launch_seconds": self.launch_seconds,
            "sharpness": SHARPNESS,
            "optimizer_seconds": list(self.optimizer),
            "accumulation": self.accumulation,
        }


@dataclass(frozen=True, slots=True)
class SetTime:
    """A plan at one setting: the card's seconds by part and in all, the transfers', and the optimizer's on the card."""

    plan: TimePlan
    values: Sequence[Any]  # of the monomials
    card: Mapping[str, Any]
    busy: Any
    between: Sequence[Any]
    update: Any

    def transfers(self) -> list[tuple[Transfer, float]]:
        """What is sent, each with its seconds in a step, hidden or not."""
        many = self.plan.accumulation
        return [
            (row, many * value_of(row.each, self.values) + value_of(row.once, self.values))
            for row in self.plan.transfers
        ]

    def step(self, host: float = 1.0, idle: Any = 0.0) -> StepTime:
        """A step's time. `idle`: micro-batches' time in which this card has nothing to do, waiting for other stages."""
        plan = self.plan
        beside = beside_card(
            self._micro_batch(host),
            self.busy,
            self.between,
            plan.constants,
            accumulation=plan.accumulation,
            sharded=plan.sharded,
            host=host,
            loops=plan.loops,
            idle=idle,
        )
        parts = {name: plan.accumulation * value for name, value in self.card.items()} | beside
        parts[UPDATE] = self.update + host * plan.optimizer_seconds
        return StepTime(added(parts.values()), parts)

    def waited(self) -> Any:
        """Of a step's `COMMUNICATION`, what is waited for of its transfers; the rest is sharding's own work."""
        one = self._micro_batch(1.0)
        return self.plan.accumulation * one.shown + one.last + self.between[1]

    def shares(self, host: float = 1.0) -> dict[str, float]:
        """Each phase's part of a micro-batch: it waits for the card or the processor, whichever takes longer."""
        own = {}
        for name, stage in self.plan.stages.items():
            card, processor = value_of(stage.card, self.values), host * stage.launch_seconds
            own[name] = card + processor if self.plan.serial else larger(card, processor)
        whole = added(own.values())
        return {name: seconds / whole for name, seconds in own.items()}

    def pace(self, host: float = 1.0) -> Any:
        """Seconds from one micro-batch to the next."""
        return self._micro_batch(host).seconds

    def _micro_batch(self, host: float) -> MicroBatchTime:
        plan = self.plan
        return micro_batch(
            self.busy,
            host * plan.launch_seconds,
            self.between,
            self.card.get(ATTENTION, 0.0),
            plan.constants,
            hides=plan.hides,
            sharded=plan.sharded,
            serial=plan.serial,
        )


class MicroBatchTime(NamedTuple):
    """Seconds of one micro-batch."""

    card: Any  # with what sharding adds to its work
    together: Any  # with the processor beside it
    shown: Any  # transfers that do not hide
    last: Any  # what more is in sight in the last one

    @property
    def seconds(self) -> Any:
        """All of it, but what the last one adds."""
        return self.together + self.shown


def micro_batch(
    busy: Any,
    processor: Any,
    between: Sequence[Any],
    attention: Any,
    k: Constants,
    *,
    hides: Any,
    sharded: Any,
    serial: bool = False,
) -> MicroBatchTime:
    """One micro-batch; numbers or arrays of them.

    Args:
        busy: the card's seconds.
        processor: the processor's.
        between: seconds of transfers, as `TransferTimes` has them.
        attention: of `busy`, what is attention: behind it a ring hides.
        k: constants.
        hides: share of a micro-batch behind which transfers hide.
        sharded: 1 where weights are sharded over several cards.
        serial: one after the other.
    """
    waited, _, ring, hidden, hidden_once = between
    card = busy * (1 + k.sharded_share * sharded)
    together = card + processor if serial else larger(card, processor)
    room = hides * together
    shown = _above(hidden - room)
    return MicroBatchTime(
        card, together, waited + _above(ring - attention) + shown, _above(hidden + hidden_once - room) - shown
    )


def beside_card(
    one: MicroBatchTime,
    busy: Any,
    between: Sequence[Any],
    k: Constants,
    *,
    accumulation: Any,
    sharded: Any,
    host: Any,
    loops: Any,
    idle: Any = 0.0,
) -> dict[str, Any]:
    """What a step takes beside the card's own work and the optimizer, by part; numbers or arrays of them.

    Args:
        one: a micro-batch.
        busy: the card's seconds for it.
        between: seconds of transfers, as `TransferTimes` has them.
        k: constants.
        accumulation: micro-batches of a step.
        sharded: 1 where weights are sharded over several cards.
        host: how much slower the processor is.
        loops: of the training loop in a step.
        idle: micro-batches' time that passes without work.
    """
    moved = accumulation * (one.card - busy + one.shown) + one.last + between[1]
    return {
        WAITING: accumulation * (one.together - one.card),
        COMMUNICATION: moved + k.sharded_step_seconds * sharded,
        BUBBLE: idle * one.seconds,
        FIXED: host * (loops * k.micro_step_seconds + k.step_seconds),
    }


def _above(value: Any) -> Any:
    """What is above zero, of numbers or arrays."""
    return (value + abs(value)) / 2


def larger(card: Any, processor: Any) -> Any:
    """The larger of two times, rounded off where they are close."""
    return fourth_root_of_fourth_powers(card, processor)


def time_plan(
    work: WorkLog,
    held: Sequence[Held],
    trained: Sequence[Trained],
    layers: int,
    recipe: Recipe,
    gpu: Gpu,
    traffic: Traffic,
    *,
    host_bytes: Size | None = None,
    constants: Constants | None = None,
    share: float | None = None,
    link: float | None = None,
) -> TimePlan | None:
    """A step's time on a card; None where the card's rates are not known.

    Args:
        work: what the walk counted.
        held: parameters with their counts.
        trained: tensors as the optimizer sees them.
        layers: of all stacks.
        recipe: the step's.
        gpu: the card.
        traffic: what the walk sent.
        host_bytes: what lies in host memory and is read and written once a step.
        constants: in place of the fitted ones.
        share: of the peak, in place of the card's.
        link: bytes a second between two GPUs of the machine.
    """
    constants = constants or known().constants
    speed = speed_of(gpu, half_dtype(recipe), constants, share)
    if speed is None:
        return None
    update = seconds_of(update_of(trained, recipe), speed.bytes_per_second)
    if host_bytes is not None and any(host_bytes):
        update = plus(update, seconds_of(host_bytes, constants.host_bytes_per_second / 2))
    hooks = HookCalls.of(recipe, held, layers)
    transfers = transfers_of(traffic, recipe, gpu, constants, link)
    return TimePlan(
        parts_of(work, speed),
        launches(work) * constants.kernel_seconds + hooks.seconds(recipe.parallelism.strategy, constants),
        update,
        update_kernels(trained, recipe.optimizer) * constants.kernel_seconds,
        recipe.gradient_accumulation_steps,
        between_of(transfers),
        hidden_by(gpu, constants, leaves=shards_leave(recipe)),
        hooks.units > 0 and recipe.parallelism.gpus > 1,
        loops_of(recipe),
        constants,
        stages_of(work, speed, constants),
        transfers=transfers,
    )


def half_dtype(recipe: Recipe) -> str:
    """The 16-bit dtype of a step's products; where all of them run in float32, float32."""
    packed = recipe.quantization.compute_dtype if recipe.quantization is not None else "float32"
    named = (recipe.autocast, recipe.parallelism.gather_dtype, recipe.weights_dtype, packed)
    return next((dtype for dtype in named if dtype not in (None, "float32")), None) or recipe.weights_dtype


def loops_of(recipe: Recipe) -> int:
    """How often the training loop goes around in a step."""
    p = recipe.parallelism
    return 1 if p.pp > 1 and p.schedule != "sequential" else recipe.gradient_accumulation_steps


def launches(work: WorkLog) -> int:
    """Kernels that the processor launches for one micro-batch."""
    return sum(row.kernels * (GPTQ_KERNELS if rate == "gptq" else 1) for _, _, rate, row in work.rows())


def parts_of(work: WorkLog, speed: Speed) -> dict[str, Polynomial]:
    """The card's seconds for one micro-batch, by part."""
    parts: dict[str, list[float]] = {}
    for phase, cause, rate, row in work.rows():
        own = parts.setdefault(RECOMPUTATION if phase == "recomputation" else cause, [0.0] * len(MONOMIALS))
        for index, (flops, moved) in enumerate(zip(row.flops, row.bytes, strict=True)):
            if flops or moved:
                own[index] += speed.seconds(rate, flops, moved)
    return {name: tuple(coefficients) for name, coefficients in parts.items()}


def stages_of(work: WorkLog, speed: Speed, constants: Constants) -> dict[str, Stage]:
    """One micro-batch's phases, in the order in which they come."""
    found = {}
    for name, rows in work.stages.items():
        card = [0.0] * len(MONOMIALS)
        kernels = 0
        for rate, row in rows.items():
            kernels += row.kernels * (GPTQ_KERNELS if rate == "gptq" else 1)
            for index, (flops, moved) in enumerate(zip(row.flops, row.bytes, strict=True)):
                if flops or moved:
                    card[index] += speed.seconds(rate, flops, moved)
        found[name] = Stage(tuple(card), kernels * constants.kernel_seconds)
    return found


def by_phase(step: StepTime, shares: Mapping[str, float]) -> dict[str, float]:
    """A step's seconds by phase, which add up to it; `other`: between GPUs, waiting for other stages, loader and loop."""
    other = step.parts[COMMUNICATION] + step.parts[BUBBLE] + step.parts[FIXED]
    rest = step.seconds - other - step.parts[UPDATE]
    return {**{name: share * rest for name, share in shares.items()}, UPDATE: step.parts[UPDATE], OTHER: other}
