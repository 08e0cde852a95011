"""Which runner a server uses, by its settings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from loralens.jobs.local import LocalRunner
from loralens.jobs.runner import Runner

RunnerName = Literal["local", "ray"]


def new_runner(name: RunnerName = "local", ray_address: str | None = None) -> Callable[[], Runner]:
    """A function that makes the runner of one device."""
    if name == "local":
        return LocalRunner
    from loralens.jobs.ray_runner import RayRunner

    return partial(RayRunner, ray_address)
