"""The course's rules and set-ups in Chinese: formulas stay as they are, the English phrases in them are put into Chinese."""

from __future__ import annotations

import re
from typing import Final

PHRASES: Final = {
    "each rounded, then added": "各自四舍五入后相加",
    "with the share rounded to": "占比先四舍五入为",
    "a constant in the course's code": "课程代码里的常数",
    "as printed": "按课程印的数",
    "none given": "没有给出",
    "no source": "没有来源",
    "unrounded": "未舍入",
    "parameters ÷": "参数量 ÷",
    "per GPU hour": "每 GPU 小时",
    "GPU hours": "GPU 小时",
    "dollars": "美元",
    "adapter file": "适配器文件",
    "layers": "层数",
    "width": "宽度",
    "rank ÷": "秩 ÷",
    "× rank": "× 秩",
    "tasks": "任务数",
    "base": "底座",
    "adapter of rank 8 on q_proj in float32": "q_proj 上秩为 8 的适配器，float32",
    "in bfloat16 on disk": "在磁盘上为 bfloat16",
    "adapter": "适配器",
    "share": "占比",
    "full": "全量",
    "bytes": "字节",
    "one 1024 × 1024 matrix": "一个 1024 × 1024 的矩阵",
    "rank 8": "秩 8",
    "q_proj alone": "只训练 q_proj",
    "fp32 adapters": "fp32 适配器",
    "fp32 adapter": "fp32 适配器",
    "fp32 weights": "fp32 权重",
    "bf16 weights": "bf16 权重",
    "no autocast": "不用 autocast",
    "all weights are trained": "训练全部权重",
    "no checkpointing": "不用检查点",
    "against": "对比",
    "batch": "批量",
    "measured on your machine": "在你的机器上测量",
    "parameters, assumed": "个参数，假设",
    "samples": "个样本",
    "tokens": "词元",
    "epochs on an": "轮，使用",
    "at 40% of its peak": "达到峰值的 40%",
    "USD": "美元",
}
"""English phrase to Chinese; longer ones come first where one contains another."""

_ORDERED: Final = re.compile("|".join(re.escape(phrase) for phrase in sorted(PHRASES, key=len, reverse=True)))
_MARKS: Final = ((", ", "，"), ("; ", "；"), (": ", "："))


def in_chinese(text: str) -> str:
    """A rule, its numbers or a set-up as a Chinese reader reads it.

    >>> in_chinese("A × 2 bytes, each rounded, then added")
    'A × 2 字节，各自四舍五入后相加'
    """
    found = _ORDERED.sub(lambda phrase: PHRASES[phrase[0]], text)
    for mark, chinese in _MARKS:
        found = found.replace(mark, chinese)
    found = re.sub(r" \(([^()]*[\u4e00-\u9fff][^()]*)\)", r"（\1）", found)
    found = re.sub(r"(?<=[\u4e00-\u9fff]) (?=[\u4e00-\u9fff])", "", found)
    return re.sub(r"(?<=[\u4e00-\u9fff])(?=[A-Za-z0-9])|(?<=[A-Za-z0-9])(?=[\u4e00-\u9fff])", " ", found)
