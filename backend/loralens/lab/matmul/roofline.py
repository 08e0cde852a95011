"""What the device can do, measured in the same run: the denominator of every fraction.

Rates from data sheets or clock figures would be assumptions. The multiply rate is the best that any path reached in
this run, the variants included, so no fraction exceeds 1 by construction of a slow yardstick.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from loralens.lab.device import Device
from loralens.lab.matmul import packed
from loralens.lab.matmul.problem import DTYPES, LeastWork

GEMM_SIZE = {"cpu": 1024, "cuda": 8192, "mps": 2048}
READ_BYTES = {"cpu": 256 * 2**20, "cuda": 2**31, "mps": 2**29}
CALLS = 4


@dataclass(slots=True)
class MeasuredRates:
    """Best rates so far, each with what reached it."""

    device: Device
    flops_per_second: float
    flops_from: str
    read_bytes_per_second: float
    read_from: str

    def saw(self, work: LeastWork, seconds: float, what: str) -> None:
        """A variant ran: if it was faster than all before, it is the new yardstick."""
        if work.flops / seconds > self.flops_per_second:
            self.flops_per_second, self.flops_from = work.flops / seconds, what
        if work.bytes / seconds > self.read_bytes_per_second:
            self.read_bytes_per_second, self.read_from = work.bytes / seconds, what

    def floor_seconds(self, work: LeastWork) -> float:
        """The shortest time in which this work could be done here."""
        return max(work.flops / self.flops_per_second, work.bytes / self.read_bytes_per_second)

    def to_dict(self) -> dict[str, object]:
        """As the `roofline` event."""
        return {
            "flops_per_second": self.flops_per_second,
            "flops_from": self.flops_from,
            "read_bytes_per_second": self.read_bytes_per_second,
            "read_from": self.read_from,
            "device": self.device.name,
            "threads": self.device.threads,
        }


def measure(device: Device, dtype_name: str) -> MeasuredRates:
    """Best of a few square products (stock and prepacked) and of reading a buffer larger than every cache."""
    dtype, size = DTYPES[dtype_name], GEMM_SIZE[device.kind]
    a = torch.randn(size, size, device=device.torch).to(dtype)
    work = LeastWork(2 * size**3, 0)
    rates = {f"product of {size}³": work.flops / _best(device, lambda _: a @ a)}
    if packed.why_not(dtype, device.kind) is None:
        weight = packed.PackedWeight(a)
        rates[f"prepacked product of {size}³"] = work.flops / _best(device, lambda _: weight(a))
    count = READ_BYTES[device.kind] // 4
    buffer = torch.ones(count, device=device.torch)
    reads = {
        "sum of a buffer": 4 * count / _best(device, lambda _: buffer.sum()),
        "product of a matrix and a vector": 4 * count / _best(device, _matrix_vector(buffer)),
    }
    flops_from, read_from = max(rates, key=lambda k: rates[k]), max(reads, key=lambda k: reads[k])
    return MeasuredRates(device, rates[flops_from], flops_from, reads[read_from], read_from)


def _matrix_vector(buffer: torch.Tensor) -> Callable[[int], object]:
    matrix = buffer.view(-1, 4096)
    vector = torch.ones(4096, device=buffer.device)
    return lambda _: matrix @ vector


def _best(device: Device, call: Callable[[int], object]) -> float:
    device.time(call, 0, 1)
    return min(device.time(call, 0, 1).seconds for _ in range(CALLS))
