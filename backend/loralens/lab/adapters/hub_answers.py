"""What the hub answers: an adapter that is loaded, a switch, bytes on disk, and what a verification saw."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Loaded:
    """An adapter in the hub."""

    name: str
    slot: int
    rank: int
    alpha: float
    target_modules: tuple[str, ...] | str
    parameters: int
    tensor_bytes: int
    file_bytes: int
    folder: str | None


@dataclass(frozen=True, slots=True)
class Switched:
    """One switch: to which adapter, in which way, how long it took (checks included)."""

    adapter: str | None
    way: str
    seconds: float


@dataclass(frozen=True, slots=True)
class DiskUse:
    """Bytes on disk: base and adapters against one full model per task."""

    base_bytes: int
    adapter_bytes: dict[str, int]
    shared_bytes: int
    separate_bytes: int


@dataclass(frozen=True, slots=True)
class Verification:
    """What `Hub.verify` saw."""

    distinct_outputs: int
    adapters: int
    returns_bit_for_bit: bool
    base_unchanged: bool
    base_sha256: str
