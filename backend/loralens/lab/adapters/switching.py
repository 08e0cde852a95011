"""How long a switch takes, in every way, against reloading the base; and how far merged weights drift.

Everything is measured on the hub that is given, on this machine, in this process. Files are read warm (they were read a
moment ago), which favours reloading the base: a cold disk makes it slower still.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import cycle
from typing import Final

import torch

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.hub import Hub

INDEX_BATCH: Final = 200
"""Index writes per sample: one alone is shorter than the clock's step."""

DRIFT_SWITCHES: Final = 20


@dataclass(frozen=True, slots=True)
class SwitchTiming:
    """One way of switching: seconds per switch, and how many switches fit into one reload of the base."""

    way: str
    median_seconds: float
    best_seconds: float
    low_seconds: float
    high_seconds: float
    samples: int
    reload_ratio: float | None


@dataclass(frozen=True, slots=True)
class Drift:
    """Relative Frobenius error of merged weights against W + scaling · BA in float64, worst layer."""

    dtype: str
    switches: int
    in_place: float
    from_copy: float
    base_restored: float


def measure_switching(hub: Hub, seconds: float = 2.0) -> Iterator[dict[str, object]]:
    """Time every way of switching between the hub's adapters; events {"type": "timing" | "drift" | "result", …}.

    `seconds` is the time budget, shared by the ways; each has at least three samples. The hub's active adapter is
    restored. Raises: `InvalidInput` with fewer than two adapters, since there is nothing to switch between.
    """
    names = [loaded.name for loaded in hub.adapters]
    if len(names) < 2:
        raise InvalidInput("two adapters or more are needed to measure switching", field="adapters")
    active, way = hub.active, hub.way
    share = seconds / 8
    try:
        reload = _timed("reload base", hub.base.reload, share * 2)
        yield {"type": "timing", **asdict(reload)}
        timings = [reload]
        for name, action in _actions(hub, names):
            timing = _timed(name, action, share, INDEX_BATCH if name == "index" else 1, reload.median_seconds)
            timings.append(timing)
            yield {"type": "timing", **asdict(timing)}
        drifts = []
        for dtype in (torch.float32, torch.bfloat16):
            drifts.append(measure_drift(hub, dtype))
            yield {"type": "drift", **asdict(drifts[-1])}
    finally:
        hub.switch(active, way)
    yield {
        "type": "result",
        "modules": len(hub.layers),
        "base_bytes": hub.base.stored_bytes(),
        "adapter_bytes": max(hub.storage().adapter_bytes.values()),
        "threads": torch.get_num_threads(),
        "timings": [asdict(timing) for timing in timings],
        "drift": [asdict(drift) for drift in drifts],
    }


def _actions(hub: Hub, names: list[str]) -> Iterator[tuple[str, Callable[[], object]]]:
    turn = cycle(names)
    yield "index", lambda: hub.activate(next(turn))
    yield "pointer", lambda: hub.switch(next(turn), "pointer")
    on_disk = [loaded.name for loaded in hub.adapters if loaded.folder is not None]
    if on_disk:
        files = cycle(on_disk)
        yield "file", lambda: hub.switch(next(files), "file")
    yield "merge from a kept base", lambda: hub.switch(next(turn), "merge")
    swap = _InPlace(hub, torch.float32)
    yield "unmerge and merge in place", lambda: swap.to(next(turn))


def _timed(
    way: str, action: Callable[[], object], seconds: float, batch: int = 1, reload: float | None = None
) -> SwitchTiming:
    action()
    samples: list[float] = []
    began = time.perf_counter()
    while len(samples) < 3 or (time.perf_counter() - began < seconds and len(samples) < 500):
        started = time.perf_counter()
        for _ in range(batch):
            action()
        samples.append((time.perf_counter() - started) / batch)
    quartiles = statistics.quantiles(samples, n=4, method="inclusive")
    median = statistics.median(samples)
    ratio = reload / median if reload is not None else None
    return SwitchTiming(way, median, min(samples), quartiles[0], quartiles[2], len(samples), ratio)


class _InPlace:
    """Merged weights kept in one private copy: subtract the old update, add the new one. The hub's base is not used."""

    def __init__(self, hub: Hub, dtype: torch.dtype) -> None:
        self._hub = hub
        self._dtype = dtype
        self.active: str | None = None
        self.weights = {name: layer.weight.detach().to(dtype, copy=True) for name, layer in hub.layers.items()}

    @torch.no_grad()
    def to(self, name: str | None) -> None:
        """Unmerge what is merged, then merge `name` (None: back to the base)."""
        for sign, adapter in ((-1, self.active), (1, name)):
            if adapter is not None:
                for module, (a, bt, scaling) in (self._hub.pointers(adapter).pairs or {}).items():
                    self.weights[module].addmm_(bt.t().to(self._dtype), a.to(self._dtype), alpha=sign * scaling)
        self.active = name


@torch.no_grad()
def measure_drift(hub: Hub, dtype: torch.dtype, switches: int = DRIFT_SWITCHES) -> Drift:
    """Switch a private merged copy `switches` times round the adapters and compare it with the exact sum."""
    swap = _InPlace(hub, dtype)
    start = {name: weight.clone() for name, weight in swap.weights.items()}
    names = cycle([loaded.name for loaded in hub.adapters])
    for _ in range(switches):
        last = next(names)
        swap.to(last)
    in_place = from_copy = 0.0
    for module, (a, bt, scaling) in (hub.pointers(last).pairs or {}).items():
        exact = start[module].double() + scaling * bt.t().double() @ a.double()
        once = torch.addmm(start[module], bt.t().to(dtype), a.to(dtype), alpha=scaling)
        in_place = max(in_place, _relative(swap.weights[module], exact))
        from_copy = max(from_copy, _relative(once, exact))
    swap.to(None)
    restored = max(_relative(weight, start[module].double()) for module, weight in swap.weights.items())
    return Drift(str(dtype).removeprefix("torch."), switches, in_place, from_copy, restored)


def _relative(got: torch.Tensor, exact: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(got.double() - exact) / torch.linalg.vector_norm(exact))
