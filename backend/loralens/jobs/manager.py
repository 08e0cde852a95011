"""Queues jobs per device, runs them, and keeps what they tell."""

from __future__ import annotations

import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from loralens.core.errors import DeviceBusy, InvalidInput, JobFailed, JobNotFound, LoraLensError, Unavailable
from loralens.jobs import errors
from loralens.jobs.database import StorageFull
from loralens.jobs.following import BATCH_SECONDS, follow
from loralens.jobs.local import LocalRunner
from loralens.jobs.locks import FileLock, holder_lives
from loralens.jobs.model import Event, Job, JobEvent, JobSpec, Status, ToldError
from loralens.jobs.runner import JobCancelled, Runner
from loralens.jobs.store import JobStore
from loralens.jobs.work import Reported

log = logging.getLogger("loralens.jobs")

MAX_WAITING = 50
_DEVICE = re.compile(r"[a-z]{1,10}(:\d{1,3})?")


class JobManager:
    """All jobs of one server.

    `start()` and `close()` are quick and may be called from an event loop's thread; `close()` ends running jobs as
    `interrupted` and may take up to two seconds. Every other method may be called from any thread. Several servers
    may share one state directory: a device runs one job at a time over all of them. Of what a server that is gone left
    behind, the next one marks the running jobs `interrupted` and runs those that had not begun.

    Args:
        state_dir: folder for `jobs.sqlite` and the lock files; created if missing.
        new_runner: makes the runner of one device.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        new_runner: Callable[[], Runner] = LocalRunner,
        max_waiting: int = MAX_WAITING,
        max_store_bytes: int | None = None,
    ) -> None:
        self._directory = state_dir
        self._new_runner = new_runner
        self._max_waiting = max_waiting
        self._max_store_bytes = max_store_bytes
        self._owner = secrets.token_hex(8)
        self._alive: FileLock | None = None
        self._opened: JobStore | None = None
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._queues: dict[str, SimpleQueue[JobSpec | None]] = {}
        self._threads: list[threading.Thread] = []
        self._runners: dict[str, Runner] = {}
        self._running: dict[str, str] = {}
        self._cancelled: set[str] = set()
        self._unsaved: dict[str, tuple[Status, ToldError | None]] = {}

    def start(self) -> None:
        """Open the store and mark what dead servers left. A full disk is logged: calculators need no store."""
        try:
            self._store()
        except Unavailable as error:
            log.error("jobs cannot run: %s", error.message)

    def close(self) -> None:
        """End running jobs, keep the store."""
        self._closing.set()
        for queue in self._queues.values():
            queue.put(None)
        for runner in list(self._runners.values()):
            runner.close()
        for thread in self._threads:
            thread.join(timeout=2)
        if self._opened is not None:
            try:
                self._interrupt(self._owner, "the server was stopped")
            except Unavailable as error:
                log.error("%s", error.message)
            self._opened.close()
        if self._alive is not None:
            self._alive.release(remove=True)

    def submit(
        self,
        kind: str,
        function: str,
        spec: Mapping[str, Any],
        device: str = "cpu",
        *,
        queue: bool = True,
        once: bool = False,
        visitor: str = "",
        address: str = "",
        most: int | None = None,
    ) -> Job:
        """Queue a job on a device.

        Args:
            kind: see `JobSpec`, as `function` and `spec`.
            function: "module:name", chosen by the program.
            spec: JSON-able, without NaN.
            device: "cpu", "cuda:0", "mps".
            queue: False refuses when the device has anything to do.
            once: of this kind one job waits or runs at a time: it is returned in place of a second one.
            visitor: see `JobSpec`.
            address: see `JobSpec`.
            most: how many jobs of the address may wait or run.

        Raises:
            DeviceBusy: queueing was refused, too many jobs wait already, or the one job of the kind is another visitor's.
            StorageFull: the store cannot be written.
        """
        if not _DEVICE.fullmatch(device):
            raise InvalidInput(f"unknown device {device[:40]!r}", field="device", hint="cpu, cuda:0 or mps")
        job_spec = JobSpec(kind, function, spec, device, visitor=visitor, address=address)
        with self._lock:
            store = self._store()
            if once and store.active_specs(kind):
                there = self.active(kind, visitor=visitor or None)
                if there is None:
                    raise DeviceBusy(
                        "somebody else has started this already", hint="it is there for all when it is done"
                    )
                return there
            if most is not None and address and store.waiting_of(address) >= most:
                raise DeviceBusy(f"{most} jobs of your address wait or run already", hint="wait, or cancel one")
            waiting = store.waiting(device)
            if waiting and not queue:
                raise DeviceBusy(f"{device} runs another job", field="device", hint="queue the job, or wait")
            if waiting >= self._max_waiting:
                raise DeviceBusy(f"{waiting} jobs wait for {device} already", field="device", hint="wait, or cancel")
            job = store.add(job_spec, self._owner)
            self._queue(device).put(job_spec)
        return job

    def job(self, job_id: str) -> Job:
        """One job as it stands. Raises `JobNotFound`."""
        return self._with_unsaved(self._store().job(job_id))

    def jobs(
        self, *, kind: str | None = None, limit: int = 50, before: str | None = None, visitor: str | None = None
    ) -> list[Job]:
        """The newest jobs first; only a visitor's, where one is named."""
        found = self._store().jobs(kind=kind, limit=limit, before=before, visitor=visitor)
        return [self._with_unsaved(job) for job in found]

    def events(self, job_id: str, after: int = 0, limit: int = 1000) -> list[JobEvent]:
        """What a job told after the event with sequence number `after`."""
        return self._store().events(job_id, after, limit)

    def result(self, job_id: str) -> Mapping[str, Any] | None:
        """The data of the job's `result` event, if it came that far."""
        event = self._store().last_of_type(job_id, "result")
        return None if event is None else event.data

    def active(self, kind: str, *, visitor: str | None = None) -> Job | None:
        """The newest job of a kind that waits or runs; only a visitor's, where one is named."""
        return next((job for job in self.jobs(kind=kind, visitor=visitor) if job.active), None)

    def active_specs(self, kind: str) -> list[Mapping[str, Any]]:
        """The specs of all jobs of a kind that wait or run, on whichever server."""
        return self._store().active_specs(kind)

    def cancel(self, job_id: str) -> Job:
        """Cancel a job; one that has ended stays as it is. A running one ends within about a second."""
        store = self._store()
        job = store.job(job_id)
        with self._lock:
            runner = self._runners.get(job.device) if self._running.get(job.device) == job_id else None
            if runner is not None:
                self._cancelled.add(job_id)
        if runner is not None:
            runner.cancel()
        elif job.active:
            # Queued, or of another server: that one sees it at its next batch.
            store.end(job_id, "cancelled")
        return self.job(job_id)

    def forget(self, job_id: str) -> None:
        """Remove a job that has ended from the history.

        Raises:
            DeviceBusy: it waits or runs.
        """
        if not self._store().forget(job_id):
            raise DeviceBusy(f"{job_id} has not ended", field="id", hint="cancel it first: DELETE /api/jobs/{id}")

    @staticmethod
    def record(state_dir: Path, kind: str, spec: Mapping[str, Any], device: str, events: list[Event]) -> str:
        """Keep a job that ran elsewhere, such as in the command line's own process; returns its id."""
        store = JobStore(state_dir / "jobs.sqlite")
        try:
            job_spec = JobSpec(kind, "", spec, device)
            store.add(job_spec, owner="")
            store.start(job_spec.id)
            now = time.time()
            told = [
                JobEvent(number, event["type"], {name: value for name, value in event.items() if name != "type"}, now)
                for number, event in enumerate(events, start=1)
            ]
            store.append(job_spec.id, told)
            store.end(job_spec.id, "finished")
        finally:
            store.close()
        return job_spec.id

    def runner_pid(self, device: str = "cpu") -> int | None:
        """Process id of the warm child of a device, for the system page and the tests."""
        runner = self._runners.get(device)
        return runner.pid if isinstance(runner, LocalRunner) else None

    def _store(self) -> JobStore:
        with self._lock:
            if self._opened is None:
                store = JobStore(self._directory / "jobs.sqlite", max_bytes=self._max_store_bytes)
                try:
                    self._alive = FileLock(self._owner_file(self._owner))
                    self._alive.acquire()
                except OSError as error:
                    raise StorageFull(f"{self._directory} cannot be written: {error.strerror}") from None
                self._opened = store
                self._tidy()
            return self._opened

    def _tidy(self) -> None:
        try:
            self._mark_dead()
            self._store().prune()
        except Unavailable as error:
            log.error("%s", error.message)

    def _mark_dead(self) -> None:
        """Of what servers that are gone have left behind, the running is interrupted and the waiting is run here."""
        for owner in self._store().active_owners():
            if owner != self._owner and not holder_lives(self._owner_file(owner)):
                with self._lock:
                    for spec in self._store().adopt(owner, self._owner):
                        self._queue(spec.device).put(spec)
                self._interrupt(owner, "the server that ran it died")

    def _interrupt(self, owner: str, reason: str) -> None:
        """The owner's running jobs will not end by themselves; those that wait are left to the next server."""
        assert self._opened is not None
        error = errors.record(JobFailed(f"{reason} before the job ended", hint="start it again"))
        for job_id in self._opened.active_owners().get(owner, ()):
            try:
                if self._opened.job(job_id).status == "running":
                    self._opened.end(job_id, "interrupted", error)
            except (StorageFull, JobNotFound) as gone:
                log.error("%s", gone.message)

    def _owner_file(self, owner: str) -> Path:
        return self._directory / f"server-{owner}.lock"

    def _queue(self, device: str) -> SimpleQueue[JobSpec | None]:
        if device not in self._queues:
            self._queues[device] = SimpleQueue()
            runner = self._runners[device] = self._new_runner()
            lock = FileLock(self._directory / f"device-{device.replace(':', '-')}.lock")
            if isinstance(runner, LocalRunner) and os.name == "posix":
                runner.inherit(lock.fileno())
            thread = threading.Thread(target=self._work, args=(device, lock), name=f"jobs-{device}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return self._queues[device]

    def _work(self, device: str, lock: FileLock) -> None:
        while (spec := self._queues[device].get()) is not None:
            if self._closing.is_set():
                break
            try:
                if self._wait_for_turn(spec, lock):
                    self._run(spec)
            except Unavailable as error:  # the store is gone, and the job with it
                log.error("job %s: %s", spec.id, error.message)
            except JobNotFound as error:  # it was forgotten, or its store was set aside
                log.warning("%s", error.message)
            except Exception:  # a fault of ours must not end the queue of a device
                log.exception("job %s failed in the manager", spec.id)
                self._end(spec.id, "failed", JobFailed("an unexpected error occurred in the server"))
            finally:
                lock.unlock()
        lock.release()

    def _wait_for_turn(self, spec: JobSpec, lock: FileLock) -> bool:
        while self._store().job(spec.id).status == "queued":
            if lock.acquire():
                self._mark_dead()  # the device may be free because the server that held it was killed
                return True
            if self._closing.wait(BATCH_SECONDS):
                return False
        return False

    def _run(self, spec: JobSpec) -> None:
        runner = self._runners[spec.device]
        with self._lock:
            self._running[spec.device] = spec.id
        status: Status = "finished"
        error: LoraLensError | None = None
        try:
            if not self._store().start(spec.id):
                return
            follow(self._store(), spec, runner, cancelled=lambda: spec.id in self._cancelled)
        except JobCancelled:
            status = "cancelled"
        except LoraLensError as failed:
            status, error = "failed", failed
        finally:
            with self._lock:
                self._running.pop(spec.device, None)
                self._cancelled.discard(spec.id)
        if self._closing.is_set():
            return  # close() marks it as interrupted
        self._end(spec.id, status, error)

    def _end(self, job_id: str, status: Status, error: LoraLensError | None = None) -> None:
        told = None
        if error is not None:
            told = error.told if isinstance(error, Reported) else errors.record(error)
        for unsaved, (last, record) in [*self._unsaved.items(), (job_id, (status, told))]:
            try:
                self._store().end(unsaved, last, record)
                self._unsaved.pop(unsaved, None)
            except Unavailable as full:
                self._unsaved[unsaved] = (last, record)  # known only here until there is room again
                log.error("job %s ended as %s, which could not be kept: %s", unsaved, last, full.message)

    def _with_unsaved(self, job: Job) -> Job:
        """What could not be written is still true for as long as this server lives."""
        if job.id not in self._unsaved or not job.active:
            return job
        status, error = self._unsaved[job.id]
        return replace(job, status=status, error=error, place=None)
