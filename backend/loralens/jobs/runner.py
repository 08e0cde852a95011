"""What runs a job: one protocol, so that a local process and a cluster look alike to the manager."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from loralens.jobs.model import Event, JobSpec


class Runner(Protocol):
    """Runs one job at a time."""

    def start(self, spec: JobSpec) -> Iterator[Event | None]:
        """Run a job; yields what it tells, and None now and then while it tells nothing.

        Raises:
            LoraLensError: the job failed, or what ran it died (`JobFailed` and its kinds).
            JobCancelled: the job ended because of `cancel`.
        """
        ...

    def cancel(self) -> None:
        """Ask the running job to stop at its next event, and end it by force soon after; from any thread."""
        ...

    def close(self) -> None:
        """End everything that was started."""
        ...


class JobCancelled(Exception):
    """The job stopped because it was asked to."""
