"""One point of a benchmark as tensors: inputs, enough copies of the weights, and the answers in float64."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from loralens.lab.device import Device
from loralens.lab.matmul.packed import PackedWeight
from loralens.lab.words import BYTES, BenchmarkRequest

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MAX_COPIES = 16
LEAVES_CACHE = 1.5
"""Assumption: this many cache sizes of other data push a copy out, though caches do not replace strictly the oldest."""
ERROR_ROWS = 128
"""Errors are taken over at most so many rows: float64 products of thousands of rows would outlast the benchmark."""


def copies_for(weight_bytes: int, cache_bytes: int, cache: str) -> int:
    """How many copies of W to rotate over: four times the last-level cache in all when cold, one when hot.

    >>> copies_for(64 * 2**20, 32 * 2**20, "cold"), copies_for(2**18, 2**25, "cold"), copies_for(2**26, 2**25, "hot")
    (2, 16, 1)
    """
    if cache == "hot":
        return 1
    return max(2, min(MAX_COPIES, math.ceil(4 * cache_bytes / weight_bytes)))


def leaves_cache(weight_bytes: int, cache_bytes: int, cache: str) -> bool:
    """Whether rotating over the copies is enough to find none of them cached; else a buffer is written before each sample.

    >>> leaves_cache(64 * 2**20, 32 * 2**20, "cold"), leaves_cache(2**22, 2**28, "cold")
    (True, False)
    """
    return copies_for(weight_bytes, cache_bytes, cache) * weight_bytes > LEAVES_CACHE * cache_bytes


@dataclass(slots=True)
class LeastWork:
    """What a way of computing needs at least: operations and bytes that cross memory."""

    flops: int
    bytes: int

    def __add__(self, other: LeastWork) -> LeastWork:
        return LeastWork(self.flops + other.flops, self.bytes + other.bytes)


class ProductTensors:
    """Tensors of one point.

    Shapes: x (rows, in), each weight (out, in), lora_a (rank, in), lora_b (out, rank), grad (rows, out). With several
    adapters all_a (adapters, rank, in), all_b (adapters, out, rank) and `ids` (rows,), the adapter of each row.
    """

    def __init__(self, request: BenchmarkRequest, device: Device) -> None:
        self.request = request
        self.device = device
        self.dtype = DTYPES[request.dtype]
        self.element_bytes = BYTES[request.dtype]
        self.rows, self.rank = request.rows, request.rank
        self.in_features, self.out_features = request.in_features, request.out_features
        self.scaling = request.scaling
        weight_bytes = self.in_features * self.out_features * self.element_bytes
        self.copies = copies_for(weight_bytes, device.cache_bytes(), request.cache)
        # All variants rotate together: a copy comes again after all others have crossed the cache.
        self.leaves_cache = leaves_cache(weight_bytes, device.cache_bytes(), request.cache)
        generator = torch.Generator().manual_seed(request.seed)

        def normal(*shape: int, std: float) -> Tensor:
            # In float32 on the CPU first: the same numbers for every dtype and device.
            return torch.randn(*shape, generator=generator).mul_(std).to(device.torch, self.dtype)

        self.x = normal(self.rows, self.in_features, std=1.0)
        first = normal(self.out_features, self.in_features, std=self.in_features**-0.5)
        self.weights = [first, *(first.clone() for _ in range(self.copies - 1))]
        self.lora_a = normal(self.rank, self.in_features, std=self.in_features**-0.5)
        self.lora_b = normal(self.out_features, self.rank, std=0.1)
        self.grad = normal(self.rows, self.out_features, std=1.0) if request.mode == "training" else None
        if request.mode == "adapters":
            count = request.adapters
            self.all_a = normal(count, self.rank, self.in_features, std=self.in_features**-0.5)
            self.all_b = normal(count, self.out_features, self.rank, std=0.1)
            # Every adapter is used as evenly as the requests allow, in an order without pattern.
            order = torch.randperm(request.requests, generator=generator) % count
            self.request_ids = order.tolist()
            self.ids = order.repeat_interleave(request.tokens).to(device.torch)
        self._packed: dict[int, tuple[list[PackedWeight], float]] = {}
        step = max(1, self.rows // ERROR_ROWS)
        self.checked = torch.arange(0, self.rows, step)[:ERROR_ROWS]

    def weight(self, index: int) -> Tensor:
        """The copy of W for the call with that index."""
        return self.weights[index % self.copies]

    def packed(self, hint: int) -> tuple[list[PackedWeight], float]:
        """The copies of W prepacked for so many rows, made once for all variants, and the seconds that it took."""
        if hint not in self._packed:
            begin = time.perf_counter()
            copies = [PackedWeight(weight, hint) for weight in self.weights]
            self._packed[hint] = copies, time.perf_counter() - begin
        return self._packed[hint]

    def expected(self) -> Tensor:
        """The exact output in float64, at the checked rows, on the CPU."""
        x = self.x[self.checked.to(self.x.device)].cpu().double()
        y = x @ self.weights[0].cpu().double().t()
        if self.request.mode == "adapters":
            ids = self.ids.cpu()[self.checked]
            for adapter in ids.unique().tolist():
                rows = ids == adapter
                a, b = self.all_a[adapter].cpu().double(), self.all_b[adapter].cpu().double()
                y[rows] += self.scaling * (x[rows] @ a.t()) @ b.t()
            return y
        return y + self.scaling * (x @ self.lora_a.cpu().double().t()) @ self.lora_b.cpu().double().t()

    def expected_gradients(self) -> dict[str, Tensor]:
        """Exact gradients for the output gradient `grad`: dx at the checked rows, da and db whole."""
        assert self.grad is not None
        g, x = self.grad.cpu().double(), self.x.cpu().double()
        a, b = self.lora_a.cpu().double(), self.lora_b.cpu().double()
        gb = self.scaling * (g @ b)
        rows = self.checked
        return {
            "dx": g[rows] @ self.weights[0].cpu().double() + gb[rows] @ a,
            "da": gb.t() @ x,
            "db": self.scaling * (g.t() @ (x @ a.t())),
        }

    # What the parts need. Bytes: each tensor once, at its own width.

    def base_work(self) -> LeastWork:
        """x·Wᵀ alone."""
        elements = self.in_features * self.out_features + self.rows * (self.in_features + self.out_features)
        return LeastWork(2 * self.rows * self.in_features * self.out_features, elements * self.element_bytes)

    def adapter_work(self, adapters: int = 1) -> LeastWork:
        """What an ideal adapter adds to the base: its own factors and products, no further pass over x or y."""
        factors = self.rank * (self.in_features + self.out_features)
        return LeastWork(2 * self.rows * factors, adapters * factors * self.element_bytes)


def relative_error(actual: Tensor, expected: Tensor) -> float | None:
    """‖actual − expected‖ ÷ ‖expected‖ in float64; None when it is not finite."""
    exact = expected.detach()
    value = float((actual.detach().cpu().double() - exact).norm() / exact.norm())
    return value if math.isfinite(value) else None
