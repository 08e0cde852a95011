"""LoRA's product as one autograd function that keeps nothing but its input."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear


class _LoraLinear(torch.autograd.Function):
    """Forward in 3 operations, backward in 8; h = x·Aᵀ is computed again in backward, which costs rank/out_features.

    Shapes: x (rows, in_features), weight (out_features, in_features), lora_a (rank, in_features), lora_bt
    (rank, out_features).

    Source: Hu et al. 2021, arXiv:2106.09685, section 4.1, differentiated by hand:
    dx = g·W + s·(g·B)·A,  dA = s·(g·B)ᵀ·x,  dBᵀ = s·hᵀ·g.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        lora_a: Tensor,
        lora_bt: Tensor,
        scaling: float,
    ) -> Tensor:
        y = linear(x, weight, bias)
        y.addmm_(linear(x, lora_a), lora_bt, alpha=scaling)
        ctx.save_for_backward(x, weight, lora_a, lora_bt)
        ctx.scaling = scaling
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (g,) = gradients
        x, weight, lora_a, lora_bt = ctx.saved_tensors
        needs_x, _, needs_bias, needs_a, needs_b, _ = ctx.needs_input_grad
        dx = da = dbt = None
        # A power of two multiplies the narrow factor without rounding it. Another scaling would round it once more, so
        # it goes into the products, which sum in float32.
        exact = abs(math.frexp(ctx.scaling)[0]) == 0.5
        left = 1.0 if exact else ctx.scaling
        if needs_x or needs_a:
            gb = linear(g, lora_bt)
            if exact:
                gb.mul_(ctx.scaling)
            if needs_x:
                dx = (g @ weight).addmm_(gb, lora_a, alpha=left)
            if needs_a:
                da = _product(gb.t(), x, left)
        if needs_b:
            h = linear(x, lora_a)
            if exact:
                h.mul_(ctx.scaling)
            dbt = _product(h.t(), g, left)
        return dx, None, g.sum(0) if needs_bias else None, da, dbt, None


def _product(a: Tensor, b: Tensor, scaling: float) -> Tensor:
    """Scaling · a·b."""
    return a @ b if scaling == 1.0 else torch.addmm(a.new_empty(1), a, b, beta=0, alpha=scaling)


def lora_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, lora_a: Tensor, lora_bt: Tensor, scaling: float
) -> Tensor:
    """x·Wᵀ (+ bias) + scaling·(x·Aᵀ)·Bᵀ, differentiable in x, A and B; saves x and the parameters only.

    Shapes: x (rows, in_features), lora_a (rank, in_features), lora_bt (rank, out_features).
    """
    y: Tensor = _LoraLinear.apply(x, weight, bias, lora_a, lora_bt, scaling)
    return y
