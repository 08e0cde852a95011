"""Rotary position embedding of query and key: whole heads, a part of each, halves or pairs.

Sources: transformers 5.23, `apply_rotary_pos_emb` of llama (halves), phi3 and gpt_neox (a part), glm (pairs).
"""

from __future__ import annotations

from loralens.core.architecture.blocks import rotate
from loralens.core.memory import ops
from loralens.core.memory.tape import Tape, Tensor

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


def cut(t: Tape, x: Tensor, rotated: int, label: str) -> Tables:
    """The part that turns and the part that does not."""
    assert isinstance(x.width, int)
    return ops.slice_last(t, x, rotated, f"{label}: turned part"), ops.slice_last(t, x, x.width - rotated, f"{label}: passed part")


def paired(t: Tape, tables: Tables) -> Tables:
    """cos and sin with every value twice in a row, made anew in each layer."""
    cos, sin = (ops.copy(t, table, f"rotary: {name}, paired") for table, name in zip(tables, ("cos", "sin"), strict=True))
    return cos, sin
