"""The job manager as one visitor sees it: an id is a secret, so nobody's list holds another's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loralens.api.visitors import Visitor
from loralens.jobs.manager import JobManager
from loralens.jobs.model import Job, JobEvent


@dataclass(frozen=True, slots=True)
class VisitorJobs:
    """What routes do with jobs. Without a visitor (one person uses the server) lists hold everything."""

    manager: JobManager
    visitor: Visitor | None
    most: int

    def submit(
        self,
        kind: str,
        function: str,
        spec: Mapping[str, Any],
        device: str = "cpu",
        *,
        queue: bool = True,
        once: bool = False,
    ) -> Job:
        """See `JobManager.submit`; in shared use the job is the visitor's, who may have so many at a time."""
        if self.visitor is None:
            return self.manager.submit(kind, function, spec, device, queue=queue, once=once)
        name, address = self.visitor.name, self.visitor.address
        return self.manager.submit(
            kind, function, spec, device, queue=queue, once=once, visitor=name, address=address, most=self.most
        )

    def jobs(self, *, kind: str | None = None, limit: int = 50, before: str | None = None) -> list[Job]:
        """The newest jobs first: in shared use the visitor's own."""
        visitor = None if self.visitor is None else self.visitor.name
        return self.manager.jobs(kind=kind, limit=limit, before=before, visitor=visitor)

    def active(self, kind: str) -> Job | None:
        """See `JobManager.active`: in shared use only the visitor's own."""
        return self.manager.active(kind, visitor=None if self.visitor is None else self.visitor.name)

    def job(self, job_id: str) -> Job:
        """See `JobManager.job`: whoever has the id may read it."""
        return self.manager.job(job_id)

    def events(self, job_id: str, after: int = 0, limit: int = 1000) -> list[JobEvent]:
        """See `JobManager.events`."""
        return self.manager.events(job_id, after, limit)

    def result(self, job_id: str) -> Mapping[str, Any] | None:
        """See `JobManager.result`."""
        return self.manager.result(job_id)

    def active_specs(self, kind: str) -> list[Mapping[str, Any]]:
        """See `JobManager.active_specs`."""
        return self.manager.active_specs(kind)

    def cancel(self, job_id: str) -> Job:
        """See `JobManager.cancel`."""
        return self.manager.cancel(job_id)

    def forget(self, job_id: str) -> None:
        """See `JobManager.forget`."""
        self.manager.forget(job_id)
