"""Rotary tables by three kinds of position (time, height, width), as Qwen2-VL and its successors have them.

Source: transformers 5.23, models/{qwen2_vl,qwen3_vl,glm4v}/modeling_*.py.
"""

from __future__ import annotations

from loralens.core.architecture.call import Call
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import SEQUENCE, TOKENS
from loralens.core.tape.tape import Tape


def pictured(call: Call) -> bool:
    """Do samples hold something with positions of its own?"""
    media = call.media
    return media is not None and media.own_positions and media.pictures(call.recipe) is not None


def section_tables(
    t: Tape, hidden: Tensor, call: Call, width: int, *, interleaved: bool = False
) -> tuple[Tensor, Tensor]:
    """cos and sin for every token of every sample: three kinds of position, each with some of the angles.

    The positions of pictures differ by sample and kind; those of text alone are one row that is spread to all.
    `interleaved`: the angles are put in place instead of concatenated, and layers are handed the positions of text.
    """
    if pictured(call) or not interleaved:
        call.shared.pop("position ids")
        call.held.append(t.new(TOKENS * 3 if pictured(call) else SEQUENCE, "int64", 1, "position ids"))
    half = width // 2
    with t.temporary(TOKENS * 3, "float32", 1, "rotary: positions in float32"):
        angles = t.new(TOKENS * (3 * half), "float32", half, "rotary: angles")

    def scaled(name: str) -> Tensor:
        with t.temporary(angles.numel, "float32", half, name):
            return t.new(angles.numel, "float32", half, name)

    def chosen(table: Tensor, name: str) -> Tensor:
        if interleaved:
            return t.replace(table, t.new(TOKENS * width, "float32", width, name))
        with t.temporary(TOKENS * half, "float32", half, name):
            return t.replace(table, t.new(TOKENS * width, "float32", width, name))

    cos, sin = scaled("rotary: cos"), scaled("rotary: sin")
    sin = chosen(sin, "rotary: sin")
    cos = chosen(cos, "rotary: cos")
    tables = ops.cast(t, cos, hidden.dtype, "rotary: cos"), ops.cast(t, sin, hidden.dtype, "rotary: sin")
    t.end(angles)
    return tables
