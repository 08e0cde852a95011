"""Goals G1–G8 on a CUDA device: bfloat16, events, weights rotated past the L2 cache, graphs for few rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from measured import PointResult, measured

from loralens.lab.device import Device
from loralens.lab.matmul import roofline
from loralens.lab.matmul.layer import LoraLinear
from loralens.lab.matmul.table import AdapterTable
from loralens.lab.timing import quantile

LINES = {
    "G1": ("LoRA ÷ dense, forward, 2048 and 8192 rows, 4096 × 4096, rank 16", "≤ 1.06"),
    "G2": ("PEFT ÷ ours, same points; forward + backward", "≥ 1.20 bf16 adapter, ≥ 1.5 default; ≥ 1.27"),
    "G3": ("LoRA ÷ dense, one row, CUDA graph", "≤ 1.30"),
    "G4": ("operations of a call; PEFT's added time ÷ ours, one row, no graph", "≤ 3; ≥ 1.8"),
    "G5": ("8 requests, 6 adapters, one token each ÷ dense", "≤ 1.35"),
    "G6": ("64 adapters ÷ 1 adapter, 64 rows", "≤ 1.15"),
    "G7": ("dense as a fraction of the measured roofline: 8192 rows; one row", "≥ 0.85; ≥ 0.80"),
    "G8": ("switch the resident adapter; host to device, 8.4 MB pinned", "≤ 5 µs; ≤ 1 ms"),
}
WAYS = ("addmm", "triton_split", "own", "peft", "peft_same_dtype")
BATCHES = ("gather_bmm", "stacked_mask", "grouped_mm")
Make = Callable[..., dict[str, Any]]


def measure(row: Make, seconds: float) -> Iterator[dict[str, Any]]:
    """Yields one row per goal; without a CUDA device all of them say so."""
    if not torch.cuda.is_available():
        for name, (line, goal) in LINES.items():
            yield row(name, line, goal, "", None, "no CUDA device in this machine")
        return
    device = Device("cuda:0")
    limits = roofline.measure(device, "bfloat16")
    about: dict[str, Any] = {"dtype": "bfloat16", "rank": 16, "alpha": 32.0}
    large = [measured(device, limits, seconds, tokens=tokens, variants=WAYS, **about) for tokens in (2048, 8192)]
    train = measured(
        device, limits, seconds, mode="training", tokens=8192, variants=("own", "peft", "peft_same_dtype"), **about
    )
    one = measured(
        device, limits, seconds, tokens=1, variants=("graph_dense", "graph_addmm", "addmm", "peft", "eager"), **about
    )
    yield from _single(row, large, train, one)
    few = measured(device, limits, seconds, mode="adapters", tokens=1, variants=BATCHES, **about)
    best = few.best(*BATCHES) or "dense"
    yield row("G5", *LINES["G5"], f"{few.ratio(best)[0]:.3f}", few.ratio(best)[0] <= 1.35, best)
    wide = {
        count: measured(
            device, limits, seconds, mode="adapters", tokens=1, requests=64, adapters=count, variants=BATCHES, **about
        )
        for count in (1, 64)
    }
    names = {count: point.best(*BATCHES) or "dense" for count, point in wide.items()}
    times = {count: point.rows[names[count]]["seconds"]["median"] for count, point in wide.items()}
    flat = times[64] / times[1]
    yield row("G6", *LINES["G6"], f"{flat:.3f}", flat <= 1.15, f"64: {names[64]}, 1: {names[1]}")
    fractions = (large[1].rows["dense"]["roofline_fraction"], one.rows["graph_dense"]["roofline_fraction"])
    yield row(
        "G7", *LINES["G7"], f"{fractions[0]:.2f}; {fractions[1]:.2f}", fractions[0] >= 0.85 and fractions[1] >= 0.80
    )
    yield _switch(row, device)


def _single(row: Make, large: list[PointResult], train: PointResult, one: PointResult) -> Iterator[dict[str, Any]]:
    ours = [point.best("addmm", "triton_split") or "addmm" for point in large]
    found = [point.ratio(name)[0] for point, name in zip(large, ours, strict=True)]
    yield row("G1", *LINES["G1"], " / ".join(f"{m:.3f}" for m in found), max(found) <= 1.06, ", ".join(ours))
    if large[0].ran("peft"):
        same = min(point.ratio("peft_same_dtype", name)[0] for point, name in zip(large, ours, strict=True))
        default = min(point.ratio("peft", name)[0] for point, name in zip(large, ours, strict=True))
        both = train.ratio("peft_same_dtype", "own")[0]
        yield row(
            "G2",
            *LINES["G2"],
            f"{same:.2f}, {default:.2f}; {both:.2f}",
            same >= 1.2 and default >= 1.5 and both >= 1.27,
        )
    else:
        yield row("G2", *LINES["G2"], "", None, "PEFT is not installed")
    graph = one.ratio("graph_addmm", "graph_dense")[0]
    yield row("G3", *LINES["G3"], f"{graph:.3f}", graph <= 1.3)
    rival = "peft" if one.ran("peft") else "eager"
    gain = one.added_seconds(rival) / max(one.added_seconds("addmm"), 1e-9)
    operations = one.rows["addmm"]["operations"]
    yield row("G4", *LINES["G4"], f"{operations}; {gain:.2f}", operations <= 3 and gain >= 1.8, f"against {rival}")


def _switch(row: Make, device: Device) -> dict[str, Any]:
    table = AdapterTable()
    weight = torch.zeros(64, 64, device=device.torch)
    layer = LoraLinear(weight, table=table)
    for name in ("a", "b"):
        layer.set_adapter(name, torch.zeros(8, 64), torch.zeros(64, 8), 1.0)

    def writes(_: int) -> None:
        for _pair in range(500):
            table.use("a")
            table.use("b")

    cpu = Device("cpu")
    switch = quantile([cpu.time(writes, 0, 1).seconds / 1000 for _ in range(10)], 0.5)
    host = torch.empty(8_400_000, dtype=torch.uint8).pin_memory()
    there = torch.empty_like(host, device=device.torch)
    copy = quantile([device.time(lambda _: there.copy_(host, non_blocking=True), 0, 1).seconds for _ in range(20)], 0.5)
    met = switch <= 5e-6 and copy <= 1e-3
    return row("G8", *LINES["G8"], f"{switch * 1e6:.2f} µs; {copy * 1e3:.2f} ms", met)
