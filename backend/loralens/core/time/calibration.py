"""One machine's own rates, found by timing real steps on it: five numbers in place of the published ones.

A processor is a card like any other, but one that does its launching itself: there, time adds up, and nothing hides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final

from loralens.core.errors import InvalidInput
from loralens.core.time.measured_links import MeasuredLinks
from loralens.core.time.polynomial import seconds_of
from loralens.core.time.rates import Speed, known
from loralens.core.time.step_time import TimePlan, launches, parts_of, stages_of
from loralens.core.time.transfers import TransferTimes
from loralens.core.time.update import update_bytes, update_kernels

if TYPE_CHECKING:
    from loralens.core.question.recipe import Recipe
    from loralens.core.step.optimizer import Trained
    from loralens.core.tape.work import WorkLog

RATES: Final = (
    "flops_per_second", "attention_flops_per_second", "bytes_per_second", "weights_per_second", "kernel_seconds",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TimedCase:
    """A small step that was timed, beside what rates say that were found without it."""

    method: str
    hidden_size: int
    layers: int
    micro_batch_size: int
    sequence_length: int
    gradient_checkpointing: bool
    measured_seconds: float
    computed_seconds: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Rates of one device in one dtype, and how they were found."""

    device: str
    dtype: str
    threads: int
    serial: bool  # the device launches its own kernels: a processor
    flops_per_second: float
    attention_flops_per_second: float
    bytes_per_second: float
    weights_per_second: float  # that are unpacked
    kernel_seconds: float
    steps: int  # that were timed
    median_error: float  # of steps that were left out of the fit in turn
    date: str
    software: str
    cases: tuple[TimedCase, ...] = ()
    links: MeasuredLinks | None = None  # of a machine with several devices

    def to_dict(self) -> dict[str, object]:
        """As JSON types."""
        return asdict(self)

    @staticmethod
    def read(data: Mapping[str, Any]) -> Calibration:
        """From what `to_dict` wrote.

        Raises:
            InvalidInput: a field is missing, unknown or not a number above zero.
        """
        names = {field.name for field in fields(Calibration)}
        if {*data, "cases", "links"} != names:  # older files have neither cases nor links
            raise InvalidInput(
                "this is no calibration", field="calibration", hint="loralens bench --calibrate writes one"
            )
        if not all(isinstance(data[name], (int, float)) and data[name] > 0 for name in RATES):
            raise InvalidInput("a calibration's rates must be numbers above 0", field="calibration")
        try:
            cases = tuple(TimedCase(**row) for row in data.get("cases", ()))
        except TypeError:
            raise InvalidInput("this is no timed case", field="calibration.cases") from None
        links = data.get("links")
        return Calibration(**{**data, "cases": cases, "links": None if links is None else MeasuredLinks.read(links)})

    def speed(self) -> Speed:
        """As a card's rates."""
        products, attention, unpacking = self.flops_per_second, self.attention_flops_per_second, self.weights_per_second
        return Speed(
            {
                **dict.fromkeys(("half", "float32"), products),
                **dict.fromkeys(("flash", "efficient", "efficient_float32"), attention),
                **dict.fromkeys(("nf4", "gptq", "gptq_triton"), unpacking),
            },
            self.bytes_per_second,
        )


def calibrated(work: WorkLog, trained: Sequence[Trained], recipe: Recipe, calibration: Calibration) -> TimePlan:
    """A step's time on the calibrated device.

    Raises:
        InvalidInput: the recipe asks for several GPUs.
    """
    if recipe.parallelism.gpus > 1:
        raise InvalidInput("a calibration is of one device", field="parallelism.gpus", hint="try gpus=1")
    speed = calibration.speed()
    k = replace(known().constants, kernel_seconds=calibration.kernel_seconds, micro_step_seconds=0.0, step_seconds=0.0)
    return TimePlan(
        parts_of(work, speed),
        launches(work) * k.kernel_seconds,
        seconds_of(
            update_bytes(trained, recipe.optimizer, clipped=recipe.max_grad_norm is not None), speed.bytes_per_second
        ),
        update_kernels(trained, recipe.optimizer) * k.kernel_seconds,
        recipe.gradient_accumulation_steps,
        TransferTimes(),
        0.0,
        sharded=False,
        loops=recipe.gradient_accumulation_steps,
        constants=k,
        stages=stages_of(work, speed, k),
        serial=calibration.serial,
    )
