import os
import secrets
import threading
from pathlib import Path

import pytest

from loralens.jobs.manager import JobManager

HERE = Path(__file__).parent
# Ray's heads ask for a token, and would write one into the home; a second node offers it only when told to.
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
os.environ.setdefault("RAY_AUTH_MODE", "token")


@pytest.fixture(autouse=True)
def _children_find_the_jobs(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE))


@pytest.fixture
def manager(tmp_path):
    manager = JobManager(tmp_path / "state")
    manager.start()
    yield manager
    manager.close()


@pytest.fixture
def wait():
    """Wait until a condition of a job holds, at most 30 s unless more is given."""

    def until(manager, job_id, condition=lambda job: not job.active, seconds=30):
        pause = threading.Event()
        for _ in range(100 * seconds):
            job = manager.job(job_id)
            if condition(job):
                return job
            pause.wait(0.01)
        raise AssertionError(f"still {job}")

    return until
