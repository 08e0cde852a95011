"""`loralens gpus`: the catalogue of GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from loralens.cli.options import Json
from loralens.cli.render import gib, line, print_json, table
from loralens.cli.words import Argument
from loralens.core.answer.listings import gpu_answer, gpus_answer
from loralens.core.catalogue import ON_DEMAND

if TYPE_CHECKING:
    from loralens.core.catalogue.shapes import GpuRow


Name = Annotated[str | None, Argument("GPU", help="Show one GPU: id, alias, or custom:24GiB,1008GB/s,165TFLOP/s.")]
EXAMPLES = (
    ("loralens gpus", "all names, with memory, rates and prices"),
    ("loralens gpus 4090", "one card with every source"),
    ("loralens gpus custom:24GB,1008GB/s,165TFLOP/s", "a card of your own, as it is understood"),
)


def command(gpu: Name = None, json: Json = False) -> None:
    """GPUs that are known by name: memory, rates and prices, each with its source."""
    if gpu is not None:
        row = gpu_answer(gpu)
        if json:
            return print_json(row)
        for name, value in row.items():
            if value not in (None, [], {}):
                line(f"{name}: {value}")
        return None
    answer = gpus_answer()
    if json:
        return print_json(answer)
    columns = ["id", "name", "memory", "bandwidth", "bfloat16", "cheapest on demand"]
    return table(columns, [_row(row) for row in answer["gpus"]], left=2)


def _row(row: GpuRow) -> tuple[str, ...]:
    bandwidth = row["memory_bandwidth_bytes_per_second"]
    rate = row["dense_flops_per_second"].get("bfloat16")
    prices = [price["usd_per_gpu_hour"] for price in row["prices"] if price["market"] == ON_DEMAND]
    return (
        row["id"],
        row["name"],
        gib(row["memory_bytes"]),
        "?" if bandwidth is None else f"{bandwidth / 1e9:,.0f} GB/s",
        "?" if rate is None else f"{rate / 1e12:,.0f} TFLOP/s",
        f"${min(prices):.2f}/h" if prices else "?",
    )
