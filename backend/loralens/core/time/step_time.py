"""The time of a step as a formula: seconds on the card as a polynomial in batch, length and rank, beside the processor's.

While the card works, the processor launches: whichever takes longer decides, and where both take about as long, neither hides
the other wholly. Everything else, the optimizer's step and fixed costs, comes one after the other.

Leaves out: loading data, logging and saving; clocks that fall as a card gets hot; what a sliding window spares the flash
kernel. Checked against published runs: docs/accuracy-time.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from loralens.core.tape.cost import CAUSES, UPDATE
from loralens.core.tape.size import MONOMIALS, Size, monomial_values
from loralens.core.time.communication import Communication, communication
from loralens.core.time.floats import added, fourth_root_of_fourth_powers
from loralens.core.time.rates import Constants, Speed, known, speed_of
from loralens.core.time.update import update_bytes, update_kernels

if TYPE_CHECKING:
    from loralens.core.catalogue import Gpu
    from loralens.core.question.recipe import Recipe
    from loralens.core.step.held import Held
    from loralens.core.step.optimizer import Trained
    from loralens.core.tape.work import WorkLog

SHARPNESS: Final = 4
"""Of the larger of two times: (a^4 + b^4)^(1/4), 19 % above either where they are equal. An assumption."""
GPTQ_KERNELS: Final = 15
"""Torch operations that unpack a GPTQ weight (auto_gptq's `qlinear_cuda_old`: shifts, masks, zeros, scales); counted roughly."""
RECOMPUTATION, COMMUNICATION, WAITING, FIXED = "recomputation", "communication", "waiting", "fixed"
PARTS: Final = (*CAUSES, RECOMPUTATION, COMMUNICATION, WAITING, FIXED)

Polynomial = tuple[float, ...]
"""Coefficients of `tape.size.MONOMIALS`."""


@dataclass(frozen=True, slots=True)
class StepTime:
    """One step's seconds, gradient accumulation included, by part; the parts add up to it."""

    seconds: float
    parts: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class TimePlan:
    """A step's time as coefficients. `card`: seconds on the card of one micro-batch, by part."""

    card: Mapping[str, Polynomial]
    launch_seconds: float  # the processor's for one micro-batch
    optimizer: Polynomial
    optimizer_seconds: float  # launches
    accumulation: int
    between: Communication
    gathered: Polynomial  # seconds
    reduced: Polynomial
    constants: Constants
    serial: bool = False  # the device launches its own kernels: nothing hides

    def at(self, batch: float, sequence: float, rank: float, host: float = 1.0) -> StepTime:
        """The time at one setting, or at arrays of them; `host`: how much slower the processor launches than the constants' one."""
        values = monomial_values(batch, sequence, rank)  # type: ignore[arg-type]
        card = {name: _value(polynomial, values) for name, polynomial in self.card.items()}
        busy, between = added(card.values()), self.between
        beside = beside_card(
            busy,
            host * (self.launch_seconds + between.hook_seconds),
            _value(self.gathered, values),
            _value(self.reduced, values),
            self.constants,
            accumulation=self.accumulation,
            hides=between.hides,
            sharded=between.sharded,
            host=host,
            serial=self.serial,
        )
        parts = {name: self.accumulation * value for name, value in card.items()} | beside
        parts[UPDATE] = _value(self.optimizer, values) + host * self.optimizer_seconds
        return StepTime(added(parts.values()), parts)

    def to_dict(self) -> dict[str, Any]:
        """The formula as JSON: what a page evaluates."""
        return {
            "monomials": [list(exponents) for exponents in MONOMIALS],
            "card_seconds": {name: list(polynomial) for name, polynomial in self.card.items()},
            "launch_seconds": self.launch_seconds + self.between.hook_seconds,
            "sharpness": SHARPNESS,
            "optimizer_seconds": list(self.optimizer),
            "accumulation": self.accumulation,
        }


def beside_card(
    busy: Any,
    processor: Any,
    gathered: Any,
    reduced: Any,
    k: Constants,
    *,
    accumulation: Any,
    hides: Any,
    sharded: Any,
    host: Any,
    serial: bool = False,
) -> dict[str, Any]:
    """What a step takes beside the card's own work and the optimizer, by part; numbers or arrays of them.

    Args:
        busy: the card's seconds for one micro-batch.
        processor: the processor's.
        gathered: seconds of transfers that can hide behind a micro-batch.
        reduced: seconds of transfers once a step.
        k: constants.
        accumulation: micro-batches of a step.
        hides: share of a micro-batch behind which transfers hide.
        sharded: 1 where weights are sharded over several cards.
        host: how much slower the processor is.
        serial: one after the other.
    """
    card = busy * (1 + k.sharded_share * sharded)
    together = card + processor if serial else larger(card, processor)
    shown = gathered - hides * together
    moved = accumulation * (card - busy + (shown + abs(shown)) / 2) + reduced + k.sharded_step_seconds * sharded
    return {
        WAITING: accumulation * (together - card),
        COMMUNICATION: moved,
        FIXED: host * (accumulation * k.micro_step_seconds + k.step_seconds),
    }


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
    *,
    host_bytes: Size | None = None,
    constants: Constants | None = None,
    share: float | None = None,
    link: float | None = None,
) -> TimePlan | None:
    """A step's time on a card; None where the card's rates or the strategy's time are not known.

    Args:
        work: what the walk counted.
        held: parameters with their counts.
        trained: tensors as the optimizer sees them.
        layers: of all stacks.
        recipe: the step's.
        gpu: the card.
        host_bytes: what lies in host memory and is read and written once a step.
        constants: in place of the fitted ones.
        share: of the peak, in place of the card's.
        link: bytes a second between two GPUs of the machine.
    """
    constants = constants or known().constants
    speed = speed_of(gpu, half_dtype(recipe), constants, share)
    between = communication(recipe, held, layers, gpu, constants, link)
    if speed is None or between is None:
        return None
    clipped = recipe.max_grad_norm is not None
    states = recipe.parallelism.gpus if recipe.parallelism.strategy not in ("none", "ddp") else 1
    update = seconds_of(update_bytes(trained, recipe.optimizer, clipped=clipped), speed.bytes_per_second * states)
    if host_bytes is not None and any(host_bytes):
        moved = seconds_of(host_bytes, constants.host_bytes_per_second / 2)
        update = tuple(a + b for a, b in zip(update, moved, strict=True))
    return TimePlan(
        parts_of(work, speed),
        launches(work) * constants.kernel_seconds,
        update,
        update_kernels(trained, recipe.optimizer) * constants.kernel_seconds,
        recipe.gradient_accumulation_steps,
        between,
        seconds_of(between.gathered, between.bytes_per_second),
        seconds_of(between.reduced, between.bytes_per_second),
        constants,
    )


def half_dtype(recipe: Recipe) -> str:
    """The 16-bit dtype of a step's products; where all of them run in float32, float32."""
    packed = recipe.quantization.compute_dtype if recipe.quantization is not None else "float32"
    named = (recipe.autocast, recipe.weights_dtype, packed)
    return next((dtype for dtype in named if dtype not in (None, "float32")), None) or recipe.weights_dtype


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


def seconds_of(size: Size, bytes_per_second: float) -> Polynomial:
    """Seconds that so many bytes take."""
    return tuple(coefficient / bytes_per_second for coefficient in size)


def _value(polynomial: Iterable[float], values: Iterable[float]) -> float:
    total: float = added([c * v for c, v in zip(polynomial, values, strict=True) if c])
    return total
