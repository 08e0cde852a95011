"""`loralens.Watch`: a callback of transformers' Trainer (TRL's are such), and context managers for a loop of one's own.

    trainer = SFTTrainer(..., callbacks=[loralens.Watch("Qwen/Qwen2.5-7B", "qlora", rank=16)])

    watch = loralens.Watch("Qwen/Qwen2.5-7B", "lora", sequence_length=2048)
    for batch in watch.batches(loader):
        with watch.step():
            with watch.phase("forward"):
                loss = model(**batch).loss
            with watch.phase("backward"):
                loss.backward()
            with watch.phase("optimizer"):
                optimizer.step()
                optimizer.zero_grad()
    print(watch.report())

Source: transformers 5.23.0 trainer_callback.py (events and their order), trainer.py (batches are fetched before their step).
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from loralens.core import catalogue
from loralens.core.answer.estimate import Estimate, estimate, estimate_model
from loralens.core.answer.pace import pace_on
from loralens.core.errors import InvalidInput
from loralens.lab.watch.ahead import Ahead
from loralens.lab.watch.meters import PeakWatch, meter_here

PHASES: Final = ("forward", "backward", "optimizer")
BAND: Final = 0.05
"""How far from the computed bytes a measured phase may be without being called off: an assumption (docs/accuracy.md)."""
LOG: Final = logging.getLogger("loralens.watch")


@dataclass(frozen=True, slots=True)
class Warned:
    """A batch that will not fit. `step`: of the optimizer, from 0, at which it was seen; it runs later than that."""

    step: int
    micro_batch_size: int
    sequence_length: int
    needed_bytes: int
    limit_bytes: int

    def __str__(self) -> str:
        return (
            f"a batch of {self.micro_batch_size} x {self.sequence_length:,} tokens is next and needs about "
            f"{self.needed_bytes / 2**30:.2f} GiB of {self.limit_bytes / 2**30:.2f} GiB: shorten or split it"
        )


class Watch:
    """See the module's docstring.

    Args:
        model, method, recipe: as `loralens.estimate` takes them; batch and length are read off the batches themselves.
        gpu: a card of the catalogue, for the estimate's tokens a second.
        limit_bytes: what the tensors may take, where the device does not say it.
        meter: where memory is read; the CUDA allocator's statistics or the process's memory unless given.
        warn: is called with each `Warned`, beside the log `loralens.watch`.

    Raises:
        InvalidInput, UnknownModel, UnknownGpu, UnsupportedArchitecture: as `loralens.estimate`.
    """

    def __init__(
        self,
        model: Any,
        method: str = "lora",
        *,
        gpu: str | None = None,
        limit_bytes: int | None = None,
        meter: PeakWatch | None = None,
        warn: Callable[[Warned], None] | None = None,
        **recipe: Any,
    ) -> None:
        if limit_bytes is not None and (type(limit_bytes) is not int or limit_bytes < 1):
            raise InvalidInput(
                f"limit_bytes must be a whole number of bytes, got {limit_bytes!r:.40}", field="limit_bytes"
            )
        self.estimate: Estimate = estimate(model, method=method, **recipe)
        self.warnings: list[Warned] = []
        self._gpu = None if gpu is None else catalogue.gpu(gpu)
        self._limit, self._meter, self._warn = limit_bytes, meter or meter_here(), warn
        self._ahead = Ahead(lambda batch, length: self._at(batch, length).allocated_bytes)
        self._coming: deque[tuple[int, int]] = deque()  # shapes that were seen and have not run
        self._ran: list[tuple[int, int]] = []  # shapes of the step that runs
        self._measured: dict[str, int] = {}
        self._of_step = self._steps = self._tokens = 0
        self._began = self._seconds = self._own = 0.0

    # -- a loop of one's own ------------------------------------------------------------------------------------

    def batches(self, loader: Iterable[Any]) -> Iterator[Any]:
        """The batches of a loader, each looked at while the one before it is still to run."""
        rows = iter(loader)
        waiting = next(rows, None)
        if waiting is not None:
            self.look(waiting)
        while waiting is not None:
            following = next(rows, None)
            if following is not None:
                self.look(following)
            yield waiting
            waiting = following

    def look(self, batch: Any) -> None:
        """A batch that will run: warns where it will not fit."""
        started = time.perf_counter()
        shape = shape_of(batch)
        if shape is not None:
            self._coming.append(shape)
            limit = self._limit if self._limit is not None else self._meter.limit_bytes()
            if limit is not None and not self._ahead.fits(*shape, limit):
                self._say(Warned(self._steps, *shape, self._ahead.needed_bytes(*shape), limit))
        self._own += time.perf_counter() - started

    @contextmanager
    def step(self, micro_batches: int = 1) -> Iterator[None]:
        """One optimizer step of so many batches."""
        self._begin(micro_batches)
        try:
            yield
        except BaseException:
            self._ran = []  # what failed has shown nothing of what fits
            raise
        finally:
            self._end()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """One of forward, backward and optimizer, within a step."""
        if name not in PHASES:
            raise InvalidInput(f"unknown phase {name!r:.40}", field="phase", hint=f"one of {', '.join(PHASES)}")
        self._meter.begin()
        yield
        self._read(name)

    # -- transformers' callback ---------------------------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at each batch as the loader makes it: that is one batch ahead, and a step's batches before the step."""
        loader = kwargs.get("train_dataloader")
        loader = getattr(loader, "base_dataloader", loader)  # inside accelerate's own
        if loader is None or getattr(loader, "collate_fn", None) is None:
            return
        if getattr(loader, "num_workers", 0):
            LOG.warning("batches are made in other processes (dataloader_num_workers): none is looked at ahead")
            return
        make = loader.collate_fn

        def collate(rows: Any) -> Any:
            batch = make(rows)
            self.look(batch)
            return batch

        loader.collate_fn = collate

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Forward and backward of the step's batches."""
        self._begin(int(getattr(args, "gradient_accumulation_steps", 1)))
        self._meter.begin()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Forward and backward are over; the Trainer tells no moment between them."""
        self._read("backward")
        self._meter.begin()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The optimizer has stepped."""
        self._read("optimizer")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The step is over."""
        self._end()

    def __getattr__(self, name: str) -> Any:
        """The Trainer's other events, which mean nothing here."""
        if name.startswith("on_"):
            return lambda *args, **kwargs: None
        raise AttributeError(name)

    # -- what was seen ------------------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """Predicted beside measured for each phase, tokens a second, warnings, and what watching took."""
        shapes = self._ahead.shapes()
        at = self._at(*max(shapes, key=lambda one: one[0] * one[1])) if shapes else self.estimate
        pace = None if self._gpu is None else pace_on(at.model, at.method, at.recipe, self._gpu)
        return {
            "steps": self._steps,
            "meter": self._meter.name,
            "phases": [self._row(name, at) for name in PHASES],
            "tokens_per_second": self._tokens / self._seconds if self._seconds else None,
            "predicted_tokens_per_second": None if pace is None else pace.tokens_per_second,
            "warnings": [str(one) for one in self.warnings],
            "overhead_seconds": self._own,
            "overhead": self._own / self._seconds if self._seconds else None,
        }

    def _row(self, name: str, at: Estimate) -> dict[str, Any]:
        predicted, measured = at.phases.get(name), self._measured.get(name)
        if predicted is None or measured is None or not self._meter.exact:
            inside = None
        else:
            inside = abs(measured - predicted) <= BAND * predicted
        band = None if predicted is None else [round(predicted * (1 - BAND)), round(predicted * (1 + BAND))]
        return {
            "phase": name,
            "predicted_bytes": predicted,
            "band_bytes": band,
            "measured_bytes": measured,
            "inside": inside,
        }

    def _at(self, batch: int, length: int) -> Estimate:
        own = replace(self.estimate.recipe, micro_batch_size=batch, sequence_length=length)
        return estimate_model(self.estimate.model, self.estimate.method, own)

    def _begin(self, micro_batches: int) -> None:
        started = time.perf_counter()
        count = min(micro_batches, len(self._coming))
        self._ran = [self._coming.popleft() for _ in range(count)]
        self._of_step, self._began = 0, started
        self._own += time.perf_counter() - started

    def _read(self, phase: str) -> None:
        started = time.perf_counter()
        peak = self._meter.peak_bytes()
        self._of_step = max(self._of_step, peak)
        self._measured[phase] = max(peak, self._measured.get(phase, 0))
        self._own += time.perf_counter() - started

    def _end(self) -> None:
        started = time.perf_counter()
        self._seconds += started - self._began
        self._steps += 1
        self._tokens += sum(batch * length for batch, length in self._ran)
        if self._ran:
            largest = max(self._ran, key=lambda one: one[0] * one[1])
            self._ahead.ran(*largest, self._of_step if self._meter.exact and self._of_step else None)
        self._own += time.perf_counter() - started

    def _say(self, warned: Warned) -> None:
        self.warnings.append(warned)
        LOG.warning("%s", warned)
        if self._warn is not None:
            self._warn(warned)


def shape_of(batch: Any) -> tuple[int, int] | None:
    """Samples and tokens of a batch: the shape of its `input_ids`, or its own; None: it says neither.

    >>> shape_of({"input_ids": [[1, 2, 3], [4, 5, 6]]})
    (2, 3)
    """
    ids = batch.get("input_ids") if isinstance(batch, Mapping) else batch
    shape = getattr(ids, "shape", None)
    if shape is None and isinstance(ids, (list, tuple)) and ids and isinstance(ids[0], (list, tuple)):
        shape = (len(ids), max(len(row) for row in ids))
    return (int(shape[0]), int(shape[1])) if shape is not None and len(shape) >= 2 and 0 not in shape[:2] else None
