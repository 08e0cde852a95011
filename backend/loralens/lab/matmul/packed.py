"""A frozen weight in the matrix library's own layout: put there once, so that no call pays for it again.

On CPU, oneDNN rearranges W for its kernels in every call that gets W as it is. A base that never changes can be
rearranged beforehand. The operations are those with which TorchInductor freezes models; they are private to PyTorch,
so they are probed with a real product and left alone where anything about them differs.
Source: pytorch/pytorch, torch/_inductor/fx_passes/mkldnn_fusion.py (`_reorder_linear_weight`, `_linear_pointwise`).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from loralens.lab.matmul.pages import use_huge_pages

DEFAULT_HINT = 1
"""The number of rows that the layout is chosen for. 1 was no slower than the stock call at any size tried on Zen 4;
16 is faster for float32 from 16 rows on, and slower than stock for one row."""


def hint_for(dtype: torch.dtype, rows: int) -> int:
    """The number of rows to pack for, given how many are usual.

    >>> hint_for(torch.float32, 1), hint_for(torch.float32, 128), hint_for(torch.bfloat16, 128)
    (1, 16, 1)
    """
    return 16 if dtype is torch.float32 and rows >= 16 else DEFAULT_HINT


@cache
def why_not(dtype: torch.dtype, device_type: str = "cpu") -> str | None:
    """None where packing works in this process for this dtype, else the reason in words."""
    if device_type != "cpu":
        return "prepacking is for CPUs; GPU libraries take W as it is"
    if not torch.backends.mkldnn.is_available():
        return "this PyTorch has no oneDNN"
    with torch.no_grad():
        x, weight = torch.ones(3, 32, dtype=dtype), torch.eye(48, 32, dtype=dtype)
        other = torch.full((3, 48), 2.0, dtype=dtype)
        try:
            packed = PackedWeight(weight)
            plain, added = packed(x), packed(x, add=other)
        except (RuntimeError, AttributeError, NotImplementedError, TypeError) as error:
            return f"oneDNN refuses {str(dtype).removeprefix('torch.')} here: {' '.join(str(error).split())[:120]}"
        expected = linear(x, weight)
        if not (torch.equal(plain, expected) and torch.equal(added, expected + other)):
            return "a trial run of the prepacked product gave a wrong result"
    return None


class PackedWeight:
    """W (out_features, in_features) in oneDNN's layout; opaque, and a copy: the original can be dropped or kept.

    The copy lies in huge pages where the system has them (`huge_pages`).
    """

    __slots__ = ("_weight", "huge_pages", "shape")

    def __init__(self, weight: Tensor, hint: int = DEFAULT_HINT) -> None:
        self.shape = (int(weight.shape[0]), int(weight.shape[1]))
        self._weight = _ops()._reorder_linear_weight(weight.detach().contiguous(), hint)
        self.huge_pages = _in_huge_pages(self._weight)

    def __call__(self, x: Tensor, bias: Tensor | None = None, *, add: Tensor | None = None) -> Tensor:
        """x·Wᵀ (+ bias) (+ add, in the epilogue of the product).

        Shapes: x (rows, in_features); add and the result (rows, out_features).
        """
        y: Tensor
        if add is None:
            y = _ops()._linear_pointwise(x, self._weight, bias, "none", [], "")
        else:
            y = _ops()._linear_pointwise(x, add, self._weight, bias, "add")
        return y


def _in_huge_pages(weight: Tensor) -> bool:
    try:
        address = int(_ops().data_ptr(weight)) if weight.is_mkldnn else weight.data_ptr()
    except (AttributeError, RuntimeError):  # private as well: without it, pages stay as they are
        return False
    return use_huge_pages(address, weight.numel() * weight.element_size())


def _ops() -> Any:
    return torch.ops.mkldnn
