"""DeepSeek-MoE, the first: deepseek-ai/deepseek-moe-16b-base's modeling_deepseek.py.

Read in zhexiangzhang/ServerlessMOE 7e49d53, bcmrk_transfomers/modeling_deepseek.py, whose clocks are left out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from loralens.lab.trace.hub.bailing import GrownRotary
from loralens.lab.trace.hub.experts import in_turn
from loralens.lab.trace.hub.parts import (
    HubGatedMLP,
    HubRemoteDecoder,
    HubRMSNorm,
    ProjectedAttention,
    RemoteCausal,
    own_config,
)


class HubDeepSeekGate(nn.Module):
    """Softmax in the weights' dtype, and a loss that balances the experts of each sample."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.hidden_size))
        self.experts, self.chosen = config.n_routed_experts, config.num_experts_per_tok
        self.normed, self.alpha = config.norm_topk_prob, config.aux_loss_alpha

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        batch, length, width = hidden.shape
        hidden = hidden.view(-1, width)
        logits = nn.functional.linear(hidden, self.weight, None)
        scores = logits.softmax(dim=-1)
        weights, numbers = torch.topk(scores, k=self.chosen, dim=-1, sorted=False)
        if self.chosen > 1 and self.normed:
            total = weights.sum(dim=-1, keepdim=True) + 1e-20
            weights = weights / total
        balance = None
        if self.alpha > 0.0:
            of_samples = numbers.view(batch, -1)
            by_sample = scores.view(batch, length, -1)
            often = torch.zeros(batch, self.experts, device=hidden.device)
            ones = torch.ones(batch, length * self.chosen, device=hidden.device)
            often.scatter_add_(1, of_samples, ones).div_(length * self.chosen / self.experts)
            del ones
            balance = (often * by_sample.mean(dim=1)).sum(dim=1).mean() * self.alpha
        return numbers, weights, balance


class Balance(torch.autograd.Function):
    """`AddAuxiliaryLoss`: the balancing loss gets a gradient of one beside the output's own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, loss: Any) -> Tensor:
        ctx.dtype, ctx.wanted = loss.dtype, loss.requires_grad
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad, torch.ones(1, dtype=ctx.dtype, device=grad.device) if ctx.wanted else None


class HubDeepSeekSparseBlock(nn.Module):
    """Router, experts, and an MLP for every token."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            HubGatedMLP(config.hidden_size, config.moe_intermediate_size, config.hidden_act)
            for _ in range(config.n_routed_experts)
        )
        self.gate = HubDeepSeekGate(config)
        self.shared_experts = None
        if config.n_shared_experts:
            width = config.moe_intermediate_size * config.n_shared_experts
            self.shared_experts = HubGatedMLP(config.hidden_size, width, config.hidden_act)
        self.chosen = config.num_experts_per_tok

    def forward(self, hidden: Tensor) -> Tensor:
        identity = hidden
        shape = hidden.shape
        numbers, weights, balance = self.gate(hidden)
        hidden = hidden.view(-1, hidden.shape[-1])
        flat = numbers.view(-1)
        hidden = hidden.repeat_interleave(self.chosen, dim=0)
        y = in_turn(self.experts, hidden, flat)
        y = (y.view(*weights.shape, -1) * weights.unsqueeze(-1)).sum(dim=1)
        y = y.view(*shape)
        if balance is not None:
            y = Balance.apply(y, balance)
        if self.shared_experts is not None:
            y = y + self.shared_experts(identity)
        return y


class HubDeepSeekAttention(ProjectedAttention):
    """Each layer has tables of its own."""

    def __init__(self, config: Any) -> None:
        width = config.hidden_size // config.num_attention_heads
        super().__init__(config, GrownRotary(width, config.max_position_embeddings))


class HubDeepSeekLayer(nn.Module):
    """Pre-norm attention, and an MLP or experts."""

    def __init__(self, config: Any, index: int) -> None:
        super().__init__()
        self.self_attn = HubDeepSeekAttention(config)
        sparse = index >= config.first_k_dense_replace and index % config.moe_layer_freq == 0
        self.mlp = (
            HubDeepSeekSparseBlock(config)
            if sparse
            else HubGatedMLP(config.hidden_size, config.intermediate_size, config.hidden_act)
        )
        self.input_layernorm = HubRMSNorm(config.hidden_size)
        self.post_attention_layernorm = HubRMSNorm(config.hidden_size)

    def forward(self, hidden: Tensor, mask: Tensor | None, positions: Tensor) -> Tensor:
        residual = hidden
        hidden = self.input_layernorm(hidden)
        hidden = self.self_attn(hidden, mask, positions)
        hidden = residual + hidden
        residual = hidden
        hidden = self.post_attention_layernorm(hidden)
        hidden = self.mlp(hidden)
        hidden = residual + hidden
        return hidden


class DeepseekModel(HubRemoteDecoder):
    """The stack."""

    def __init__(self, config: Any) -> None:
        indices = iter(range(config.num_hidden_layers))
        super().__init__(config, lambda config: HubDeepSeekLayer(config, next(indices)))


DeepseekConfig = own_config(
    "deepseek", hidden_act="silu", num_key_value_heads=None, attention_bias=False, moe_intermediate_size=1407,
    n_shared_experts=None, moe_layer_freq=1, first_k_dense_replace=0, norm_topk_prob=False, aux_loss_alpha=0.001,
    max_position_embeddings=2048, tie_word_embeddings=False,
)  # fmt: skip


class DeepseekForCausalLM(RemoteCausal):
    """The causal language model."""

    config_class = DeepseekConfig
    decoder = DeepseekModel
