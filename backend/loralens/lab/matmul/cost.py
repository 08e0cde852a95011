"""Which form to run: predicted from sizes before anything is measured, and judged from measurements after.

A form costs its base product, its further passes over the output, its own products, and a fixed price per operation.
The figures below are assumptions that rank forms, nothing more; a recommendation made after a run rests on the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from loralens.lab.matmul import packed
from loralens.lab.matmul.catalogue import of_mode
from loralens.lab.measured import Recommendation
from loralens.lab.words import Mode

if TYPE_CHECKING:
    from loralens.lab.matmul.problem import ProductTensors
    from loralens.lab.matmul.roofline import MeasuredRates
    from loralens.lab.measured import Row


@dataclass(frozen=True, slots=True)
class AssumedRates:
    """Speed of a kind of device; assumptions until a run has measured them."""

    flops_per_second: float
    bytes_per_second: float
    operation_seconds: float


ASSUMED: Final = {
    "cpu": AssumedRates(1e11, 2e10, 3e-6),
    "cuda": AssumedRates(7e14, 4e12, 4e-6),
    "mps": AssumedRates(1e13, 2e11, 1e-5),
}


@dataclass(frozen=True, slots=True)
class Form:
    """What a form adds to the base product.

    Args:
        passes: reads and writes of the whole output (rows × out_features) beyond the base product's own.
        operations: launches beyond the base product.
        packed: computes the base from a prepacked weight.
        graph: replays all launches as one.
    """

    passes: float
    operations: int
    packed: bool = False
    graph: bool = False


FORMS: Final[dict[Mode, dict[str, Form]]] = {
    # Passes counted from the operations: eager writes and reads the delta, scales it, adds two into a third.
    "forward": {
        "eager": Form(6, 4),
        "addmm": Form(2, 2),
        "packed_addmm": Form(2, 2, packed=True),
        "packed_epilogue": Form(2.2, 3, packed=True),
        # Half-precision passes: x read and written in float32 and read (5), the delta written and read (4), y (2).
        "packed_float32": Form(11, 4, packed=True),
        "graph_addmm": Form(2, 2, graph=True),
        "triton_split": Form(0, 1),
    },
    "training": {"eager": Form(12, 12), "own": Form(6, 11)},
    "adapters": {
        "loop_adapters": Form(6, 30),
        "gather_bmm": Form(4, 6),
        "grouped_mm": Form(6, 8),
        "stacked_mask": Form(2, 3),
        "packed_stacked": Form(2, 3, packed=True),
        "packed_stacked_epilogue": Form(2.2, 3, packed=True),
    },
}
PACKED_GAIN: Final = 0.8
"""Assumption: a prepacked base takes this part of the stock base's time, where the product itself takes long."""
PACKED_SECONDS: Final = 60e-6
"""Assumption: what finding a prepacked kernel costs per call at the most (15 to 200 µs were seen on Zen 4): it keeps
packing away from products that are over sooner."""
FEW_ROWS: Final = 64
"""Assumption: up to about so many rows, half-precision products with few columns take the library longer than their
operations and bytes say, more than float32 copies cost."""
FEW_ROWS_COST: Final = {"after": 1.03, "epilogue": 1.02, "float32": 1.0}
"""Assumption from two machines (Zen 4 with bfloat16 arithmetic, Intel AVX-512 without): what that adds to the base's
time, by where the adapter's part is computed and added."""


def choose(
    mode: Mode,
    *,
    kind: str,
    dtype: torch.dtype,
    rows: int,
    in_features: int,
    out_features: int,
    rank: int,
    adapters: int = 1,
    available: set[str] | None = None,
    rates: AssumedRates | None = None,
) -> str:
    """The form that should be fastest for these sizes, among those that can run.

    >>> choose("forward", kind="cuda", dtype=torch.bfloat16, rows=512, in_features=64, out_features=64, rank=8)
    'addmm'
    """
    rates = rates or ASSUMED[kind]
    can_pack = packed.why_not(dtype, kind) is None
    size = dtype.itemsize

    def seconds(name: str, form: Form) -> float:
        flops, weights = 2 * rows * in_features * out_features, in_features * out_features * size
        base = max(flops / rates.flops_per_second, weights / rates.bytes_per_second)
        columns = rank * (adapters if "stacked" in name else 1)
        own = 2 * rows * columns * (in_features + out_features) / rates.flops_per_second
        passes = form.passes * rows * out_features * size / rates.bytes_per_second
        if form.packed:
            base = base * PACKED_GAIN + PACKED_SECONDS * (2 if "epilogue" in name else 1)
            few_half = dtype.itemsize == 2 and rows <= FEW_ROWS
            passes *= 0.5 if "epilogue" in name and few_half else 1.5 if "epilogue" in name else 1
            if few_half:
                way = "epilogue" if "epilogue" in name else "float32" if "float32" in name else "after"
                base *= FEW_ROWS_COST[way]
        return base + own + passes + (0 if form.graph else form.operations * rates.operation_seconds)

    possible = {
        name: seconds(name, form)
        for name, form in FORMS[mode].items()
        if (can_pack or not form.packed)
        and not (name == "packed_float32" and size == 4)
        and (name in available if available is not None else _usual(name, kind))
    }
    return min(possible, key=lambda name: possible[name])


def _usual(name: str, kind: str) -> bool:
    return name not in ("graph_addmm", "triton_split", "grouped_mm")


def recommend(problem: ProductTensors, rows: Mapping[str, Row], roofline: MeasuredRates) -> Recommendation | None:
    """The recommended variant: the fastest measured one that keeps the adapter separate and passes the error bound.

    Where several lie within the noise floor of the fastest, the one with the fewest operations is taken.
    """
    mode = problem.request.mode
    honest = {info.id for info in of_mode(mode) if info.honest}
    candidates = [(row.ratio.median, row) for row in rows.values() if row.id in honest and row.ratio and row.error_ok]
    if not candidates:
        return None
    fastest = min(ratio for ratio, _ in candidates)
    again = rows.get("dense_again")
    noise = again.ratio if again else None
    width = 0.0 if noise is None else max(abs(noise.q1 - 1), abs(noise.q3 - 1))
    close = [(ratio, row) for ratio, row in candidates if ratio <= fastest * (1 + width)]
    # The layer of this package is one of the forms: it is named only where it alone is fastest.
    ratio, best = min(close, key=lambda one: (one[1].id == "own", one[1].operations or 99, one[0]))
    available = {name for name, row in rows.items() if row.available}
    predicted = choose(
        mode,
        kind=problem.device.kind,
        dtype=problem.dtype,
        rows=problem.rows,
        in_features=problem.in_features,
        out_features=problem.out_features,
        rank=problem.rank,
        adapters=problem.request.adapters,
        available=available,
        rates=AssumedRates(
            roofline.flops_per_second, roofline.read_bytes_per_second, ASSUMED[problem.device.kind].operation_seconds
        ),
    ) if set(FORMS[mode]) & available else None  # fmt: skip
    change = f"{abs(ratio - 1):.1%} {'less' if ratio < 1 else 'more'} time than dense"
    among = "" if len(close) == 1 else f"; {len(close) - 1} others are within the noise of this run"
    return Recommendation(
        variant=best.id,
        name=best.name,
        ratio=ratio,
        reason=f"{change}, fastest of {len(candidates)} variants that keep the adapter separate and are accurate{among}",
        predicted=predicted,
        candidates=len(candidates),
        ties=len(close) - 1,
    )
