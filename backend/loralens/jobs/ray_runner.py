"""Runs jobs on a Ray cluster: for more machines or GPUs than the server has. Only the adapter is ours; Ray is the engine.

A job is a remote generator: what it tells comes back one by one. It gets one GPU when its device is one, it is never
run twice (a training that crashed must not begin again in silence), and `ray.cancel` stops it.
Source: docs.ray.io, "Ray Generators", `ray.cancel` (KeyboardInterrupt in the task; with force its process ends).

What a job tells in the moment in which its process dies may not arrive: Ray sends it in the background.
The cluster's machines need this package in the same version, with the extras that the jobs use.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from loralens.core.errors import DependencyMissing, JobFailed, LoraLensError, OutOfMemory, Unavailable
from loralens.extras import how_to_install
from loralens.jobs import errors, work
from loralens.jobs.model import Event, JobSpec, Message
from loralens.jobs.runner import JobCancelled

log = logging.getLogger("loralens.jobs")

GRACE_SECONDS = 1.0
"""Assumption: how long a job may take to end after a cancel, before its process is killed."""
TICK_SECONDS = 0.1
STORE_BYTES = 100 * 2**20
"""Shared memory of a cluster that is started here; events are small, and Ray's default is 30% of the machine's."""


class RayRunner:
    """Jobs of one device, one at a time, as tasks of a Ray cluster.

    Args:
        address: of a running cluster, such as "10.0.0.5:6379" or "ray://10.0.0.5:10001"; None starts one on this
            machine, reachable from this machine only, with neither dashboard nor usage statistics.
    """

    def __init__(self, address: str | None = None) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._task: Any = None
        self._cancelled_at: float | None = None
        self._connected = False
        self._unfinished = True

    def start(self, spec: JobSpec) -> Iterator[Event | None]:
        """See `Runner.start`; None also while the job waits for a place in the cluster."""
        ray = _imported(self._address)
        with self._lock:
            self._cancelled_at, self._unfinished = None, True
            if not self._connected:
                _CONNECTION.open(ray, self._address)
                self._connected = True
            gpus = 1 if spec.device.startswith("cuda") else 0
            remote = ray.remote(max_retries=0, num_cpus=1, num_gpus=gpus)(_lines)
            self._task = task = remote.remote(spec.function, dict(spec.spec))
        try:
            yield from self._follow(ray, task)
        except (work.Reported, GeneratorExit):
            # The task goes on: after an error that its process must not survive, or because nobody listens any more.
            # Elsewhere a task must not be cancelled by force right after a plain cancel: when its answer is under way,
            # Ray 2.60 ends the whole driver ("Tried to complete task that was not pending").
            if self._cancelled_at is None and self._unfinished:
                ray.cancel(task, force=True)
            raise
        except ray.exceptions.TaskCancelledError:
            raise JobCancelled from None
        except ray.exceptions.RayError as error:
            if self._cancelled_at is not None:
                raise JobCancelled from None
            raise _told(ray, error) from None
        finally:
            with self._lock:
                self._task = None

    def cancel(self) -> None:
        """See `Runner.cancel`."""
        with self._lock:
            if self._task is not None and self._cancelled_at is None:
                self._cancelled_at = time.monotonic()
                _imported(self._address).cancel(self._task)

    def close(self) -> None:
        """End the running job; the last runner ends a cluster that was started here."""
        with self._lock:
            if not self._connected:
                return
            ray = _imported(self._address)
            if self._task is not None:
                self._cancelled_at = time.monotonic()
                ray.cancel(self._task, force=True)
            self._connected = False
        _CONNECTION.close(ray)

    def _follow(self, ray: Any, task: Any) -> Iterator[Event | None]:
        while True:
            ready, _ = ray.wait([task], timeout=TICK_SECONDS)
            # A cancelled task's stream ends at once, and then `next` would wait for the task itself.
            if self._cancelled_at is not None:
                yield from self._ended(ray, task)
                raise JobCancelled
            if not ready:
                yield None
                continue
            try:
                message: Message = json.loads(ray.get(next(task)))
            except StopIteration:
                raise JobFailed("the job ended without saying how", hint="start it again") from None
            if "event" in message:
                yield message["event"]
            elif "error" in message:
                self._unfinished = errors.is_fatal(message["error"])  # others end by themselves
                raise work.Reported(message["error"])
            elif "done" in message:
                return

    def _ended(self, ray: Any, task: Any) -> Iterator[None]:
        """Wait for a cancelled task, and after a while by force."""
        for force in (False, True):
            if force:
                ray.cancel(task, force=True)
            deadline = time.monotonic() + GRACE_SECONDS
            while time.monotonic() < deadline:
                if ray.wait([task.completed()], timeout=TICK_SECONDS)[0]:
                    return
                yield None


def _lines(function: str, spec: dict[str, object]) -> Iterator[str]:
    """In the cluster: the job, line by line."""
    for line in work.lines(function, spec, lambda: False):
        yield line
        told = json.loads(line).get("error")
        if told is not None and errors.is_fatal(told):
            # This process must serve no other job. The server, which has just been told, cancels by force; should it
            # have died, Ray ends the task with it.
            time.sleep(60)
            os._exit(1)


def _told(ray: Any, error: Exception) -> LoraLensError:
    text = " ".join(str(error).split())[:300]
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return OutOfMemory(
            f"Ray ended the job, since its machine ran out of memory: {text}", hint="choose smaller sizes"
        )
    if isinstance(error, (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError)):
        return JobFailed(
            f"the job's process in the cluster died: {text}",
            hint="Linux kills a process when memory runs out; choose smaller sizes, or start the job again",
        )
    return JobFailed(f"Ray could not run the job: {text}", hint="see the cluster's logs")


def _imported(address: str | None) -> Any:
    # Ray reads these when it is imported. It reports its use to its makers by default, and takes this machine's address
    # in the network even when it is told 127.0.0.1, unless it believes that it cannot make clusters.
    # Source: ray 2.60, _private/ray_constants.py (ENABLE_RAY_CLUSTER), _private/services.py (get_node_ip_address).
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None or address.startswith(("127.0.0.1:", "localhost:")):
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        return import_module("ray")
    except ImportError:
        raise DependencyMissing(
            "running jobs on a cluster needs the package ray", hint=how_to_install("cluster")
        ) from None


def _init(ray: Any, about: dict[str, object], address: str | None) -> None:
    """Connect; a cluster of our own that a busy machine did not start in Ray's 30 s is started once more."""
    for attempt in (1, 2):
        try:
            ray.init(**about)
            return
        except Exception as error:  # a node that does not start in time is told by a plain Exception
            ray.shutdown()
            if address is not None or attempt == 2:
                raise Unavailable(
                    f"no Ray cluster answers at {address or 'this machine'}: {' '.join(str(error).split())[:200]}",
                    hint="check LORALENS_RAY_ADDRESS, or start one with: ray start --head",
                ) from None


class _Connection:
    """This process's one connection to a cluster, shared by the runners of all devices."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0

    def open(self, ray: Any, address: str | None) -> None:
        """Connect, or start a cluster on this machine.

        Raises:
            Unavailable: no cluster answers at the address.
        """
        with self._lock:
            if self._users == 0 and not ray.is_initialized():
                about: dict[str, object] = {"log_to_driver": False, "configure_logging": False}
                about["address"] = address or "local"
                if address is None:
                    about |= {"include_dashboard": False, "object_store_memory": STORE_BYTES}
                    about["_node_ip_address"] = "127.0.0.1"
                    os.environ["PYTHONPATH"] = work.python_path()  # its processes inherit it
                _init(ray, about, address)
            self._users += 1

    def close(self, ray: Any) -> None:
        """One user less; the last one disconnects, which ends a cluster of ours."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                ray.shutdown()


_CONNECTION = _Connection()
