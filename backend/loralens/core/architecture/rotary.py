"""Rotary position embedding of query and key: whole heads, a part of each, halves or pairs.

Sources: transformers 5.23, `apply_rotary_pos_emb` of llama (halves), phi3 and gpt_neox (a part), glm (pairs).
"""

from __future__ import annotations

from loralens.core.architecture.blocks import rotate, rotate_half
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape

Tables = tuple[Tensor, Tensor]


def rotate_part(t: Tape, q: Tensor, k: Tensor, tables: Tables, rotated: int, *, pass_empty: bool = False) -> Tables:
    """Rotary on the first `rotated` values of each head; the rest is passed and concatenated.

    `pass_empty`: slices and concatenates even where everything turns (phi3).
    """
    if rotated == q.width and not pass_empty:
        return rotate(t, q, tables, "attention query"), rotate(t, k, tables, "attention key")
    q_rot, q_pass = cut(t, q, rotated, "attention query")
    k_rot, k_pass = cut(t, k, rotated, "attention key")
    q_out = rotate(t, q_rot, tables, "attention query")
    k_out = rotate(t, k_rot, tables, "attention key")
    q_out = ops.cat(t, [q_out, q_pass], q.width, "attention query, whole")
    k_out = ops.cat(t, [k_out, k_pass], k.width, "attention key, whole")
    return q_out, k_out


def rotate_float32(t: Tape, q: Tensor, k: Tensor, tables: Tables) -> Tables:
    """Rotary with tables in float32, to which both are promoted; cast back at the end (OLMo)."""
    q_out, k_out = rotate(t, q, tables, "attention query"), rotate(t, k, tables, "attention key")
    return (
        ops.cast(t, q_out, q.dtype, "attention query, cast back"),
        ops.cast(t, k_out, k.dtype, "attention key, cast back"),
    )


def rotate_twice(t: Tape, x: Tensor, tables: Tables, label: str) -> Tensor:
    """Rotary in float32, whose two terms each cast x anew (ModernBERT)."""
    cos, sin = tables
    direct = ops.mul(t, ops.cast(t, x, "float32", f"{label} in float32"), cos, f"{label}: x*cos")
    half = rotate_half(t, ops.cast(t, x, "float32", f"{label} in float32"), label)
    turned = ops.mul(t, half, sin, f"{label}: half*sin")
    t.end(half)
    return ops.add(t, direct, turned, f"{label} after rotary")


def rotate_chunks(t: Tape, x: Tensor, tables: Tables, label: str) -> Tensor:
    """Two halves, each turned with half of the tables: `a*cos - b*sin` and `b*cos + a*sin`, concatenated."""
    assert isinstance(x.width, int)
    cos, sin = (Tensor(table.storage, table.numel // 2, table.dtype, x.width // 2) for table in tables)
    first, second = ops.split(t, x, [x.width // 2] * 2, f"{label}: halves")
    left = ops.sub(
        t,
        ops.mul(t, first, cos, f"{label}: a*cos"),
        ops.mul(t, second, sin, f"{label}: b*sin"),
        f"{label}: a*cos - b*sin",
    )
    right = ops.add(
        t,
        ops.mul(t, second, cos, f"{label}: b*cos"),
        ops.mul(t, first, sin, f"{label}: a*sin"),
        f"{label}: b*cos + a*sin",
    )
    return ops.cat(t, [left, right], x.width, f"{label} after rotary")


def cut(t: Tape, x: Tensor, rotated: int, label: str) -> Tables:
    """The part that turns and the part that does not."""
    assert isinstance(x.width, int)
    return ops.slice_last(t, x, rotated, f"{label}: turned part"), ops.slice_last(
        t, x, x.width - rotated, f"{label}: passed part"
    )


def paired(t: Tape, tables: Tables) -> Tables:
    """cos and sin with every value twice in a row, made anew in each layer."""
    cos, sin = (
        ops.copy(t, table, f"rotary: {name}, paired") for table, name in zip(tables, ("cos", "sin"), strict=True)
    )
    return cos, sin
