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

While it runs the page shows it (`loralens serve` of the same state folder).

Source: transformers 5.23.0 trainer_callback.py (events and their order), trainer.py (batches are fetched before their step).
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, cast

from loralens.core import catalogue
from loralens.core.answer.estimate import Estimate, estimate, estimate_model
from loralens.core.answer.pace import pace_on
from loralens.core.errors import InvalidInput
from loralens.core.question.shapes import RecipeWords
from loralens.lab.watch.ahead import Ahead
from loralens.lab.watch.beside import PHASES, phase_rows
from loralens.lab.watch.heartbeat import Heartbeat, text_of, uncaught
from loralens.lab.watch.meters import PeakWatch, meter_here
from loralens.settings import Settings
from loralens.watched import Phase, WatchedBeat

SHOWN_WARNINGS: Final = 5
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
            f"a batch of {self.micro_batch_size} × {self.sequence_length:,} tokens is next and needs about "
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
        heartbeat: whether the page may show it: a file of some kilobytes in the state folder, every two seconds. Of several
            processes of one training the first one keeps it.

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
        heartbeat: bool = True,
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
        self._id, self._started = secrets.token_hex(8), time.time()
        self._phase: Phase | None = None
        self._largest, self._pace = self.estimate, self._pace_at(self.estimate)
        self._last: tuple[float, float] | None = None  # when the last step ended, and what it took
        self._ended: Literal["finished", "failed"] | None = None
        self._failure: str | None = None
        self._heart = None
        if heartbeat and os.environ.get("RANK", "0") == "0":
            self._heart = Heartbeat(Settings().state_directory(), self._beat)

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
        except BaseException as error:
            self._ran = []  # what failed has shown nothing of what fits
            self._failure = text_of(error)
            self._end(self._phase)
            raise
        self._failure = None
        self._end()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """One of forward, backward and optimizer, within a step."""
        if name not in PHASES:
            raise InvalidInput(f"unknown phase {name!r:.40}", field="phase", hint=f"one of {', '.join(PHASES)}")
        self._phase = cast(Phase, name)
        self._meter.begin()
        yield
        self._read(name)

    def close(self) -> None:
        """The training is over. Without this it is when the program ends."""
        self._ended = self._ended or ("failed" if self._failure else "finished")
        if self._heart is not None:
            self._heart.stop()

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
        self._phase = "forward_backward"
        self._meter.begin()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Forward and backward are over; the Trainer tells no moment between them."""
        self._read("backward")
        self._phase = "optimizer"
        self._meter.begin()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The optimizer has stepped."""
        self._read("optimizer")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The step is over."""
        self._end()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The training is over."""
        self.close()

    def __getattr__(self, name: str) -> Any:
        """The Trainer's other events, which mean nothing here."""
        if name.startswith("on_"):
            return lambda *args, **kwargs: None
        raise AttributeError(name)

    # -- what was seen ------------------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """Predicted beside measured for each phase, tokens a second, warnings, and what watching took."""
        at, own = self._largest, self._own + (0.0 if self._heart is None else self._heart.seconds)
        return {
            "steps": self._steps,
            "meter": self._meter.name,
            "phases": phase_rows(at.phases, self._measured, exact=self._meter.exact),
            "tokens_per_second": self._tokens / self._seconds if self._seconds else None,
            "predicted_tokens_per_second": self._pace,
            "warnings": [str(one) for one in self.warnings],
            "overhead_seconds": own,
            "overhead": own / self._seconds if self._seconds else None,
        }

    def _beat(self) -> WatchedBeat:
        """What the page shows: what was seen so far, and whether it goes on. Nothing is computed here."""
        seen, at = self.report(), self._largest
        if self._ended is None and self._heart is not None and self._heart.is_over:  # the program ends
            if self._phase is not None and self._failure is None:
                self._failure = uncaught() or "the program ended within a step"
            self._ended = "failed" if self._failure else "finished"
        return {
            "id": self._id,
            "model": None if at.model.key is None else at.model.id,
            "name": at.model.name,
            "method": at.method,
            "recipe": RecipeWords(at.recipe.to_dict()),
            "gpu": None if self._gpu is None else self._gpu.name,
            "meter": self._meter.name,
            "phases": seen["phases"],
            "phase": self._phase,
            "steps": self._steps,
            "step_seconds": None if self._last is None else self._last[1],
            "tokens_per_second": seen["tokens_per_second"],
            "predicted_tokens_per_second": self._pace,
            "warnings": seen["warnings"][-SHOWN_WARNINGS:],
            "warned": len(seen["warnings"]),
            "overhead": seen["overhead"],
            "started_seconds": self._started,
            "stepped_seconds": None if self._last is None else self._last[0],
            "beat_seconds": time.time(),
            "ended": self._ended,
            "failure": self._failure,
        }

    def _pace_at(self, at: Estimate) -> float | None:
        pace = None if self._gpu is None else pace_on(at.model, at.method, at.recipe, self._gpu)
        return None if pace is None else pace.tokens_per_second

    def _at(self, batch: int, length: int) -> Estimate:
        own = replace(self.estimate.recipe, micro_batch_size=batch, sequence_length=length)
        return estimate_model(self.estimate.model, self.estimate.method, own)

    def _begin(self, micro_batches: int) -> None:
        started = time.perf_counter()
        count = min(micro_batches, len(self._coming))
        self._ran = [self._coming.popleft() for _ in range(count)]
        self._of_step, self._began = 0, started
        if self._heart is not None and self._last is None and self._steps == 0:
            self._heart.start()
        self._own += time.perf_counter() - started

    def _read(self, phase: str) -> None:
        started = time.perf_counter()
        peak = self._meter.peak_bytes()
        self._of_step = max(self._of_step, peak)
        self._measured[phase] = max(peak, self._measured.get(phase, 0))
        self._own += time.perf_counter() - started

    def _end(self, phase: Phase | None = None) -> None:
        """`phase`: of a step that failed, in which it did."""
        started = time.perf_counter()
        self._seconds += started - self._began
        self._steps += 1
        self._last, self._phase = (time.time(), started - self._began), phase
        self._tokens += sum(batch * length for batch, length in self._ran)
        if self._ran:
            largest = max(self._ran, key=lambda one: one[0] * one[1])
            self._ahead.ran(*largest, self._of_step if self._meter.exact and self._of_step else None)
            self._compare_with(max(self._ahead.shapes(), key=lambda one: one[0] * one[1]))
        self._own += time.perf_counter() - started

    def _compare_with(self, shape: tuple[int, int]) -> None:
        """Beside what is measured stands what was computed of the largest step."""
        recipe = self._largest.recipe
        if self._steps == 1 or shape != (recipe.micro_batch_size, recipe.sequence_length):
            self._largest = self._at(*shape)
            self._pace = self._pace_at(self._largest)

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
