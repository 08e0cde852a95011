"""The goals that the benchmark holds itself to, measured and printed: C1–C15 on a CPU, G1–G8 on a CUDA device.

    python benchmarks/goals.py [--seconds 12] [--json]

Every line is a ratio inside one shuffled run, so anyone can repeat it. "Stock dense" is F.linear(x, W).
Sizes, where nothing else is said: 4096 × 4096, rank 8, one thread, its CPU time, weights from memory.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "backend"))

import cuda_goals
import switching_goals
from measured import PointResult, measured

from loralens.lab.device import Device
from loralens.lab.matmul import roofline

HINT_1 = ("packed_addmm", "packed_epilogue", "packed_float32")
PACKED = (*HINT_1, "packed_hint16")
FORWARD = ("eager", "addmm", "packed_dense", "packed_touch", *PACKED, "own", "peft", "peft_same_dtype")
BATCH = (
    "loop_adapters",
    "stacked_mask",
    "packed_dense",
    "packed_stacked",
    "packed_stacked_epilogue",
    "own",
    "peft_mixed",
)
TOKENS = (1, 16, 128, 512)
LIMITS = {"float32": (0.92, 0.65, 0.80, 0.88), "bfloat16": (0.92, 0.90, 1.00, 1.00)}
MIB = 2**20
Row = dict[str, Any]


def row(name: str, line: str, goal: str, measured_text: str, met: bool | None, detail: str = "") -> Row:
    """One line of the table; met None: not measured, and `detail` says why."""
    verdict = "not measured" if met is None else "met" if met else "missed"
    return {"id": name, "line": line, "goal": goal, "measured": measured_text, "verdict": verdict, "detail": detail}


def measure(seconds: float = 12.0) -> Iterator[Row]:
    """Measure all goals; yields each as it is known.

    Args:
        seconds: of measuring per point; there are 13 points on the CPU.
    """
    device = Device("cpu", threads=1)
    limits = {name: roofline.measure(device, name) for name in LIMITS}
    forward: dict[tuple[str, int], PointResult] = {}
    for dtype in LIMITS:
        for tokens in TOKENS:
            forward[dtype, tokens] = measured(
                device, limits[dtype], seconds, dtype=dtype, tokens=tokens, variants=FORWARD, mode="forward"
            )
    yield from _forward(forward)
    small = measured(
        device, limits["float32"], seconds / 3, dtype="float32", tokens=1, in_features=256, out_features=256,
        cache="hot", variants=("addmm", "own", "peft"),
    )  # fmt: skip
    yield _dispatch(small)
    batches = {
        dtype: measured(device, limits[dtype], seconds, mode="adapters", dtype=dtype, tokens=1, variants=BATCH)
        for dtype in LIMITS
    }
    yield _batch("C7", batches["bfloat16"], 1.14, 0.82)
    yield _batch("C8", batches["float32"], 1.06, 0.72)
    training = measured(
        device, limits["bfloat16"], seconds, mode="training", dtype="bfloat16", tokens=512,
        variants=("eager", "own", "full_gradient", "peft"),
    )  # fmt: skip
    yield from _training(training, forward["bfloat16", 512], batches["bfloat16"])
    yield from switching_goals.measure(row)
    yield _errors([*forward.values(), *batches.values(), training])
    yield from cuda_goals.measure(row, seconds)


def _forward(points: dict[tuple[str, int], PointResult]) -> Iterator[Row]:
    for name, dtype in (("C1", "float32"), ("C2", "bfloat16")):
        best = [_best(points[dtype, tokens]) for tokens in TOKENS]
        if None in best:
            reason = str(points[dtype, 1].rows["packed_addmm"]["reason"])
            yield row(name, f"LoRA on prepacked W ÷ stock dense, {dtype}", str(LIMITS[dtype]), "", None, reason)
            continue
        found = [points[dtype, t].ratio(form or "") for t, form in zip(TOKENS, best, strict=True)]
        met = all(middle <= limit for (middle, _, _), limit in zip(found, LIMITS[dtype], strict=True))
        yield row(
            name, f"LoRA on prepacked W ÷ stock dense, {dtype}, 1/16/128/512 rows",
            "≤ " + " / ".join(f"{limit:.2f}" for limit in LIMITS[dtype]), " / ".join(f"{m:.3f}" for m, _, _ in found), met,
            "; ".join(_spread(t, form, *r) for t, form, r in zip(TOKENS, best, found, strict=True))
            + _limit([points[dtype, t].ratio("packed_dense")[0] for t in TOKENS], dtype),
        )  # fmt: skip
    yield from _against_others(points)


def _limit(alone: list[float], dtype: str) -> str:
    """What prepacking itself gains on this processor: LoRA on top of it cannot be faster."""
    text = "; the prepacked base alone, with no adapter: " + " / ".join(f"{ratio:.3f}" for ratio in alone)
    return text if dtype == "float32" or _has_bfloat16() else f"{text}; this processor has no bfloat16 arithmetic"


def _has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 numbers; without that the library widens them to float32."""
    known = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(asked() for asked in known if asked is not None) or platform.machine() not in ("x86_64", "AMD64")


def _best(point: PointResult) -> str | None:
    return point.best(*PACKED)


def _spread(tokens: int, form: str | None, middle: float, low: float, high: float) -> str:
    return f"{tokens}: {form} {middle:.3f} [{low:.3f}–{high:.3f}]"


def _against_others(points: dict[tuple[str, int], PointResult]) -> Iterator[Row]:
    ours = {key: _best(point) or "addmm" for key, point in points.items()}
    gains = {key: point.ratio("eager", ours[key])[0] for key, point in points.items()}
    goal = {key: 1.04 for key in points} | {("float32", 16): 1.5, ("bfloat16", 1): 1.15, ("bfloat16", 16): 1.15}
    yield row(
        "C3", "PEFT's form ÷ ours, same run", "≥ 1.5 (float32, 16), ≥ 1.15 (bfloat16, 1 and 16), ≥ 1.04 elsewhere",
        " / ".join(f"{gain:.2f}" for gain in gains.values()), all(gains[key] >= goal[key] for key in points),
        "order: float32 then bfloat16, each 1/16/128/512 rows",
    )  # fmt: skip
    same = {key: point.best(*HINT_1) or "" for key, point in points.items()}  # packed as packed_dense is
    packed = {key: point.ratio(same[key], "packed_dense") for key, point in points.items() if point.ran("packed_dense")}
    if packed:
        limits = {key: points[key].ratio("packed_touch", "packed_dense")[0] for key in packed}
        yield row(
            "C4", "LoRA ÷ dense packed the same way", "≤ 1.04", " / ".join(f"{m:.3f}" for m, _, _ in packed.values()),
            all(middle <= 1.04 for middle, _, _ in packed.values()),
            "; ".join(
                f"{key[0]} {_spread(key[1], same[key], *found)}, only reading A and B costs {limits[key]:.3f}"
                for key, found in packed.items()
            ),
        )  # fmt: skip
    middle, low, high = points["bfloat16", 512].ratio("addmm")
    noise = points["bfloat16", 512].noise()
    yield row(
        "C5", "without packing: addmm ÷ stock dense, bfloat16, 512 rows", "≤ 1.03", f"{middle:.3f}", middle <= 1.03,
        f"[{low:.3f}–{high:.3f}], noise floor {noise[0]:.3f}",
    )  # fmt: skip


def _dispatch(point: PointResult) -> Row:
    own, peft = point.added_seconds("own") * 1e6, None
    if point.ran("peft"):
        peft = point.added_seconds("peft") * 1e6
    return row(
        "C6", "time added per layer where arithmetic vanishes (256 × 256, one row, float32)", "≤ 9 µs", f"{own:.1f} µs",
        own <= 9, f"dense {point.rows['dense']['seconds']['median'] * 1e6:.1f} µs"
        + ("" if peft is None else f", PEFT adds {peft:.1f} µs"),
    )  # fmt: skip


def _batch(name: str, point: PointResult, unpacked_limit: float, packed_limit: float) -> Row:
    unpacked = point.ratio("stacked_mask")
    best = point.best("packed_stacked", "packed_stacked_epilogue")
    packed = point.ratio(best) if best else None
    peft = f", PEFT {point.ratio('peft_mixed')[0]:.2f}" if point.ran("peft_mixed") else ""
    detail = f"[{unpacked[1]:.3f}–{unpacked[2]:.3f}]"
    if packed:
        detail += f"; {best} [{packed[1]:.3f}–{packed[2]:.3f}]"
        detail += _limit([point.ratio("packed_dense")[0]], point.data["settings"]["dtype"])
    return row(
        name, f"6 adapters, 8 requests, one token each, {point.data['settings']['dtype']} ÷ stock dense",
        f"≤ {unpacked_limit} unpacked, ≤ {packed_limit} packed",
        f"{unpacked[0]:.3f} / " + (f"{packed[0]:.3f}" if packed else "no packing here"),
        unpacked[0] <= unpacked_limit and packed is not None and packed[0] <= packed_limit, detail + peft,
    )  # fmt: skip


def _training(training: PointResult, forward: PointResult, batch: PointResult) -> Iterator[Row]:
    middle, low, high = training.ratio("own")
    own = training.rows["own"]
    yield row(
        "C9", "forward + backward ÷ frozen floor, bfloat16, 512 rows", "≤ 1.05, 0 bytes saved beyond x",
        f"{middle:.3f}, {own['saved_bytes']} bytes", middle <= 1.05 and own["saved_bytes"] == 0,
        f"[{low:.3f}–{high:.3f}]; PEFT's form {training.ratio('eager')[0]:.3f}, "
        f"full gradient {training.ratio('full_gradient')[0]:.3f}",
    )  # fmt: skip
    peft = training.rows["peft"].get("materialised_bytes")
    yield row(
        "C10", "bytes materialised by the training forward, bfloat16, 512 rows", "≤ 4.01 MiB",
        f"{own['materialised_bytes'] / MIB:.3f} MiB", own["materialised_bytes"] <= 4.01 * MIB,
        "" if peft is None else f"PEFT's default {peft / MIB:.2f} MiB",
    )  # fmt: skip
    counts = (forward.rows["addmm"]["operations"], own["operations"], batch.rows["own"]["operations"])
    others = (forward.rows["peft"].get("operations"), batch.rows["peft_mixed"].get("operations"))
    yield row(
        "C11", "ATen operations: layer, layer in training, mixed batch", "3, 3, 4", ", ".join(map(str, counts)),
        counts == (3, 3, 4), f"PEFT {others[0]} and {others[1]}",
    )  # fmt: skip


def _errors(points: list[PointResult]) -> Row:
    """Every honest variant in W's dtype; PEFT's fp32 adapter is another dtype, and more accurate."""
    worst, wrong = 0.0, []
    for point in points:
        for name, found in point.rows.items():
            if not found.get("error_limit"):
                continue
            errors, limits = found.get("gradient_errors") or {}, found.get("gradient_limits") or {}
            pairs = {"y": (found["error"], found["error_limit"])}
            pairs |= {key: (errors[key], limit) for key, limit in limits.items()}
            for key, (error, limit) in pairs.items():
                worst = max(worst, float("inf") if error is None else error / limit)
                if error is None or error > limit:
                    wrong.append(f"{name} {key} {'not finite' if error is None else f'{error:.2e}'} > {limit:.2e}")
    return row(
        "C15", "error against float64 ÷ its limit, worst of all timed variants: outputs and gradients",
        "≤ 1 (bfloat16: 1.05 × PEFT's form; float32: 2 × and ≤ 1e-6)", f"{worst:.2f}", not wrong, "; ".join(wrong),
    )  # fmt: skip


def main() -> None:
    """Print every goal as it is known."""
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--seconds", type=float, default=12.0, help="of measuring per point; 13 points on the CPU")
    read.add_argument("--json", action="store_true", help="print JSON")
    given = read.parse_args()
    rows = []
    for found in measure(given.seconds):
        rows.append(found)
        if not given.json:
            verdict = f"{found['id']:4}{found['verdict']:13}{found['measured'] or '–'}"
            print(f"{verdict}  (goal {found['goal']})  {found['line']}", flush=True)
            if found["detail"]:
                print(f"{'':17}{found['detail']}", flush=True)
    if given.json:
        print(json.dumps({"goals": rows}, ensure_ascii=False))


if __name__ == "__main__":
    main()
