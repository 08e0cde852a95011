"""y = x·Wᵀ + s·h·Bᵀ in one kernel, after h = x·Aᵀ.

The split form: h is small and made by the library, so no tile computes x·Aᵀ again; the kernel begins with s·h·Bᵀ in the
accumulator and adds x·Wᵀ to it, so the output crosses memory once.
Source: Zhu et al. 2025 (LoRAFusion), arXiv:2510.00206, cuts the graph at the same place.

On a CPU this runs in Triton's interpreter (TRITON_INTERPRET=1 before import), for tests: it checks the arithmetic and
the masks at ragged sizes, not speed, shared-memory limits or tensor cores.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_BLOCK_R = 64
"""Assumption: tiles of h and B this wide fit into shared memory beside nothing else; higher ranks take several."""
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@triton.jit  # type: ignore[untyped-decorator]
def _product(a: Any, b: Any, accumulator: Any, CAST: tl.constexpr) -> Any:
    # The interpreter multiplies the bit patterns of bfloat16 numbers; float32 tiles give it numbers.
    if CAST:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, accumulator, input_precision="ieee")


@triton.jit  # type: ignore[untyped-decorator]
def _split(
    x: Any, w: Any, h: Any, b: Any, y: Any, scaling: Any,
    M: Any, N: Any, K: Any, R: Any,
    x_row: Any, w_row: Any, h_row: Any, b_row: Any, y_row: Any,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_R: tl.constexpr,
    GROUP: tl.constexpr, CAST: tl.constexpr,
) -> None:  # fmt: skip
    # Neighbouring programs share tiles of W in the L2 cache: GROUP row blocks go down before the next column block.
    program = tl.program_id(0)
    blocks_m, blocks_n = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    group = program // (GROUP * blocks_n)
    first = group * GROUP
    height = tl.minimum(blocks_m - first, GROUP)
    inside = program % (GROUP * blocks_n)
    rows = (first + inside % height) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = (inside // height) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_rows, in_columns = rows[:, None] < M, columns[:, None] < N
    # 64-bit offsets: rows × columns passes 2³¹ at sizes that are in use.
    x_at = x + rows[:, None].to(tl.int64) * x_row
    w_at = w + columns[:, None].to(tl.int64) * w_row
    # The narrow product first: its scaling then needs no second accumulator beside the wide one.
    h_at = h + rows[:, None].to(tl.int64) * h_row
    b_at = b + columns[:, None].to(tl.int64) * b_row
    accumulator = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for r in tl.range(0, R, BLOCK_R, num_stages=1):
        depth = r + tl.arange(0, BLOCK_R)
        h_tile = tl.load(h_at + depth[None, :], mask=in_rows & (depth[None, :] < R), other=0.0)
        b_tile = tl.load(b_at + depth[None, :], mask=in_columns & (depth[None, :] < R), other=0.0)
        accumulator = _product(h_tile, tl.trans(b_tile), accumulator, CAST)
    accumulator *= scaling
    for k in range(0, K, BLOCK_K):
        depth = k + tl.arange(0, BLOCK_K)
        x_tile = tl.load(x_at + depth[None, :], mask=in_rows & (depth[None, :] < K), other=0.0)
        w_tile = tl.load(w_at + depth[None, :], mask=in_columns & (depth[None, :] < K), other=0.0)
        accumulator = _product(x_tile, tl.trans(w_tile), accumulator, CAST)
    y_at = y + rows[:, None].to(tl.int64) * y_row + columns[None, :]
    tl.store(y_at, accumulator.to(y.dtype.element_ty), mask=in_rows & (columns[None, :] < N))


def _tiles(rows: int) -> dict[str, int]:
    """Tile sizes by the number of rows; assumptions from common Hopper and Ampere settings, not tuned here."""
    if INTERPRETED:
        return {"BLOCK_M": 32, "BLOCK_N": 64, "BLOCK_K": 64, "GROUP": 2}
    if rows <= 16:
        return {"BLOCK_M": 16, "BLOCK_N": 64, "BLOCK_K": 128, "GROUP": 1, "num_warps": 4, "num_stages": 4}
    if rows <= 64:
        return {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 128, "GROUP": 1, "num_warps": 4, "num_stages": 4}
    return {"BLOCK_M": 128, "BLOCK_N": 256, "BLOCK_K": 64, "GROUP": 8, "num_warps": 8, "num_stages": 3}


def split_linear(x: Tensor, weight: Tensor, h: Tensor, lora_b: Tensor, scaling: float) -> Tensor:
    """x·Wᵀ + scaling·h·Bᵀ.

    Shapes: x (rows, in), weight (out, in), h (rows, rank), lora_b (out, rank); the last dimension of each contiguous.
    """
    if any(tensor.stride(-1) != 1 for tensor in (x, weight, h, lora_b)):
        x, weight, h, lora_b = (tensor.contiguous() for tensor in (x, weight, h, lora_b))
    (rows, depth), out, rank = x.shape, weight.shape[0], h.shape[1]
    y = torch.empty(rows, out, dtype=x.dtype, device=x.device)
    tiles = _tiles(rows)
    grid = (triton.cdiv(rows, tiles["BLOCK_M"]) * triton.cdiv(out, tiles["BLOCK_N"]),)
    _split[grid](
        x, weight, h, lora_b, y, scaling, rows, out, depth, rank,
        x.stride(0), weight.stride(0), h.stride(0), lora_b.stride(0), y.stride(0),
        BLOCK_R=min(MAX_BLOCK_R, max(16, triton.next_power_of_2(rank))), CAST=INTERPRETED, **tiles,
    )  # fmt: skip
    return y
