"""Experts one after the other, as DeepSeek-MoE's and Ling's own code trains them: rows repeated for each choice, picked by truth values.

A fake tensor has no numbers to pick by: each expert gets an equal share. What autograd keeps of the real operators (the truth values,
not the row numbers they become) is kept here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from loralens.lab.trace.hub.parts import HubGatedMLP


def _rows(mask: Tensor, experts: int) -> Tensor:
    return torch.empty(max(1, mask.numel() // experts), dtype=torch.int64, device=mask.device)


class Taken(torch.autograd.Function):
    """`x[mask]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, experts: int) -> Tensor:
        ctx.experts, ctx.size = experts, x.shape
        ctx.save_for_backward(mask)
        return x[_rows(mask, experts)]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (mask,) = ctx.saved_tensors
        whole = torch.zeros(ctx.size, dtype=grad.dtype, device=grad.device)
        return whole.index_put_((_rows(mask, ctx.experts),), grad, accumulate=True), None, None


class Put(torch.autograd.Function):
    """`y[mask] = values`."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, values: Tensor, mask: Tensor, experts: int) -> Tensor:
        ctx.experts = experts
        ctx.mark_dirty(y)
        ctx.save_for_backward(mask)
        return y.index_put_((_rows(mask, experts),), values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (mask,) = ctx.saved_tensors
        of_y = None
        if ctx.needs_input_grad[0]:
            zeros = torch.zeros(
                (max(1, mask.numel() // ctx.experts), grad.shape[-1]), dtype=grad.dtype, device=grad.device
            )
            of_y = grad.clone().index_put_((_rows(mask, ctx.experts),), zeros)
        of_values = grad[_rows(mask, ctx.experts)] if ctx.needs_input_grad[1] else None
        return of_y, of_values, None, None


def in_turn(experts: nn.ModuleList, hidden: Tensor, chosen: Tensor) -> Tensor:
    """One expert after the other, each on its rows. Shapes: hidden (rows, width), chosen (rows), result as hidden."""
    y = torch.empty_like(hidden)
    for i, expert in enumerate(experts):
        y = Put.apply(y, expert(Taken.apply(hidden, chosen == i, len(experts))), chosen == i, len(experts))
    return y


class HubGate(nn.Module):
    """Softmax of all experts, the best of which are scaled to one (Ling 1)."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.num_experts, config.hidden_size))
        self.chosen, self.normed = config.num_experts_per_tok, config.norm_topk_prob

    def forward(self, hidden: Tensor) -> Any:
        hidden = hidden.view(-1, hidden.shape[-1])
        logits = nn.functional.linear(hidden, self.weight, None)
        scores = logits.softmax(dim=-1, dtype=torch.float32)
        weights, numbers = torch.topk(scores, k=self.chosen, dim=-1)
        if self.chosen > 1 and self.normed:
            total = weights.sum(dim=-1, keepdim=True)
            weights = weights / total
        return numbers, weights, logits


class GroupGate(nn.Module):
    """Sigmoid scores in float32, of the best groups (Ling 2)."""

    expert_bias: Tensor

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.num_experts, config.hidden_size))
        self.experts, self.chosen = config.num_experts, config.num_experts_per_tok
        self.groups, self.chosen_groups = config.n_group, config.topk_group
        self.scaling = config.routed_scaling_factor
        self.register_buffer("expert_bias", torch.zeros(config.num_experts))

    def limited(self, scores: Tensor) -> Any:
        tokens, _ = scores.size()
        of_groups = scores.view(tokens, self.groups, -1).topk(2, dim=-1)[0].sum(dim=-1)
        groups = torch.topk(of_groups, k=self.chosen_groups, dim=-1, sorted=False)[1]
        mask = torch.zeros_like(of_groups)
        mask.scatter_(1, groups, 1)
        score_mask = mask.unsqueeze(-1).expand(tokens, self.groups, self.experts // self.groups).reshape(tokens, -1)
        masked = scores.masked_fill(~score_mask.bool(), float("-inf"))
        return torch.topk(masked, k=self.chosen, dim=-1)

    def forward(self, hidden: Tensor) -> Any:
        hidden = hidden.view(-1, hidden.shape[-1])
        logits = nn.functional.linear(hidden.type(torch.float32), self.weight.type(torch.float32))
        scores = torch.sigmoid(logits.float()).type_as(logits)
        for_routing = scores + self.expert_bias
        _, numbers = self.limited(for_routing)
        scores = torch.gather(scores, dim=1, index=numbers).type_as(logits)
        weights = scores / (scores.sum(dim=-1, keepdim=True) + 1e-20) if self.chosen > 1 else scores
        weights = weights * self.scaling
        return numbers, weights, logits


class HubSparseBlock(nn.Module):
    """Router, experts, and an MLP for every token."""

    def __init__(self, config: Any, gate: Any) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            HubGatedMLP(config.hidden_size, config.moe_intermediate_size, config.hidden_act)
            for _ in range(config.num_experts)
        )
        self.gate = gate(config)
        self.shared_experts = None
        if config.num_shared_experts:
            width = config.moe_intermediate_size * config.num_shared_experts
            self.shared_experts = HubGatedMLP(config.hidden_size, width, config.hidden_act)
        self.chosen = config.num_experts_per_tok

    def forward(self, hidden: Tensor) -> Any:
        identity = hidden
        batch, length, width = hidden.shape
        numbers, weights, logits = self.gate(hidden)
        hidden = hidden.view(-1, hidden.shape[-1])
        flat = numbers.view(-1)
        hidden = hidden.repeat_interleave(self.chosen, dim=0)
        y = in_turn(self.experts, hidden, flat)
        y = (y.view(*weights.shape, -1) * weights.unsqueeze(-1)).sum(dim=1)
        y = y.to(hidden.dtype).view(batch, length, width)
        if self.shared_experts is not None:
            y = y + self.shared_experts(identity)
        return y, (logits.view(batch, length, -1), numbers.view(batch, length, -1))
