"""The shapes of what the API says of the service itself; the answers of the core are documented by `shape`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from loralens.api.shape import Documented

Bytes = int


class HostDevice(Documented):
    """Something in this machine that can run jobs."""

    id: str = Field(description="cpu, cuda:0, mps, …")
    kind: Literal["cpu", "cuda", "mps"]
    name: str
    memory_bytes: Bytes | None
    free_bytes: Bytes | None
    driver: str | None


class LabAnswer(Documented):
    """Answer of /api/lab: whether benchmark, experiments and adapters can be used, and how far PyTorch is."""

    status: Literal["ready", "installing", "failed", "off", "missing"]
    phase: Literal["downloading", "unpacking"] | None = Field(description="What is being done; null: nothing.")
    downloaded_bytes: Bytes | None = Field(description="Of all files so far.")
    file: str | None = Field(description="The package on its way.")
    file_bytes: Bytes | None
    file_total_bytes: Bytes | None
    seconds: float | None = Field(description="Since the installation began.")
    failure: Literal["unreachable", "disk_full", "no_build", "stopped", "other"] | None
    reason: str | None = Field(description="Why it failed, in words.")
    hint: str | None = Field(description="The command that installs it.")


class SystemAnswer(Documented):
    """Answer of /api/system."""

    loralens: str
    python: str
    platform: str
    cpu_cores: int
    memory_bytes: Bytes | None
    devices: list[HostDevice]
    packages: dict[str, str | None] = Field(description="Versions of the optional packages; null: not installed.")
    lab: LabAnswer


class HealthAnswer(Documented):
    """Answer of /api/health."""

    status: Literal["ok"]
    version: str
