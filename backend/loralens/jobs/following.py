"""Keeps what a running job tells."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from loralens.core.errors import JobFailed, JobNotFound, LoraLensError, Unavailable
from loralens.jobs.model import JobEvent, JobSpec
from loralens.jobs.runner import JobCancelled, Runner
from loralens.jobs.store import JobStore

MAX_EVENTS: Final = 100_000
BATCH_SECONDS: Final = 0.1
"""One commit costs some milliseconds, a thousand rows in one commit hardly more: events are written in batches."""


def follow(store: JobStore, spec: JobSpec, runner: Runner, *, cancelled: Callable[[], bool]) -> None:
    """Run a job and write what it tells until it ends; raises what it raises, after its last events are kept.

    Args:
        store: where events are kept; a job that is no longer running there is cancelled.
        spec: the job.
        runner: what runs it.
        cancelled: asked with every batch.

    Raises:
        JobCancelled: it was cancelled.
        JobFailed: it failed, or told too much.
        Unavailable: the store cannot be written.
        JobNotFound: the store was set aside with the job in it.
    """
    told: list[JobEvent] = []
    sequence, written_at = 0, 0.0
    failed: LoraLensError | None = None
    events = runner.start(spec)
    try:
        for event in events:
            if event is not None and failed is None:
                sequence += 1
                told.append(JobEvent(sequence, event.pop("type"), event, time.time()))
                if sequence >= MAX_EVENTS:
                    failed = JobFailed(f"the job told more than {MAX_EVENTS} events")
                    runner.cancel()
            if time.monotonic() - written_at >= BATCH_SECONDS:
                written_at = time.monotonic()
                try:
                    batch, told = told, []
                    if batch:
                        store.append(spec.id, batch)
                    gone = store.job(spec.id).status != "running"
                except LoraLensError as lost:
                    failed, gone = failed or lost, True
                if failed or gone or cancelled():
                    runner.cancel()
    except JobCancelled:
        if failed is not None:
            raise failed from None
        raise
    finally:
        if told and not isinstance(failed, (Unavailable, JobNotFound)):
            store.append(spec.id, told)
    if failed is not None:
        raise failed
