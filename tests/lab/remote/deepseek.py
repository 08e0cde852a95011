"""DeepSeek-MoE, the first: deepseek-ai/deepseek-moe-16b-base's modeling_deepseek.py.

Read in zhexiangzhang/ServerlessMOE 7e49d53, bcmrk_transfomers/modeling_deepseek.py, whose clocks are left out.
"""

from __future__ import annotations

import torch
from lab.remote.bailing import GrownRotary
from lab.remote.experts import Put, Taken
from lab.remote.parts import (
    GatedMLP,
    RemoteCausal,
    RemoteDecoder,
    RMSNorm,
    attend_eager,
    attend_sdpa,
    config_class,
    repeated,
    rotated,
)
from torch import nn


class Gate(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.hidden_size))
        self.experts, self.chosen = config.n_routed_experts, config.num_experts_per_tok
        self.normed, self.alpha = config.norm_topk_prob, config.aux_loss_alpha

    def forward(self, hidden):
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
    @staticmethod
    def forward(ctx, x, loss):
        ctx.dtype, ctx.wanted = loss.dtype, loss.requires_grad
        return x

    @staticmethod
    def backward(ctx, grad):
        return grad, torch.ones(1, dtype=ctx.dtype, device=grad.device) if ctx.wanted else None


class SparseBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.experts = nn.ModuleList(
            GatedMLP(config.hidden_size, config.moe_intermediate_size, config.hidden_act)
            for _ in range(config.n_routed_experts)
        )
        self.gate = Gate(config)
        self.shared_experts = None
        if config.n_shared_experts:
            width = config.moe_intermediate_size * config.n_shared_experts
            self.shared_experts = GatedMLP(config.hidden_size, width, config.hidden_act)
        self.chosen = config.num_experts_per_tok

    def forward(self, hidden):
        identity = hidden
        shape = hidden.shape
        numbers, weights, balance = self.gate(hidden)
        hidden = hidden.view(-1, hidden.shape[-1])
        flat = numbers.view(-1)
        hidden = hidden.repeat_interleave(self.chosen, dim=0)
        y = torch.empty_like(hidden)
        for i, expert in enumerate(self.experts):
            y = Put.apply(y, expert(Taken.apply(hidden, flat == i, len(self.experts))), flat == i, len(self.experts))
        y = (y.view(*weights.shape, -1) * weights.unsqueeze(-1)).sum(dim=1)
        y = y.view(*shape)
        if balance is not None:
            y = Balance.apply(y, balance)
        if self.shared_experts is not None:
            y = y + self.shared_experts(identity)
        return y


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads, self.keys = config.num_attention_heads, config.num_key_value_heads
        self.width = config.hidden_size // self.heads
        self.groups = self.heads // self.keys
        self.eager = config._attn_implementation == "eager"
        bias = config.attention_bias
        self.q_proj = nn.Linear(config.hidden_size, self.heads * self.width, bias=bias)
        self.k_proj = nn.Linear(config.hidden_size, self.keys * self.width, bias=bias)
        self.v_proj = nn.Linear(config.hidden_size, self.keys * self.width, bias=bias)
        self.o_proj = nn.Linear(self.heads * self.width, config.hidden_size, bias=bias)
        self.rotary_emb = GrownRotary(self.width, config.max_position_embeddings)

    def forward(self, hidden, mask, positions):
        batch, length, _ = hidden.size()
        q = self.q_proj(hidden)
        k = self.k_proj(hidden)
        v = self.v_proj(hidden)
        q = q.view(batch, length, self.heads, self.width).transpose(1, 2)
        k = k.view(batch, length, self.keys, self.width).transpose(1, 2)
        v = v.view(batch, length, self.keys, self.width).transpose(1, 2)
        cos, sin = self.rotary_emb(v, k.shape[-2])
        q, k = rotated(q, k, cos[positions], sin[positions])
        k = repeated(k, self.groups)
        v = repeated(v, self.groups)
        if not self.eager and mask is not None:
            q = q.contiguous()
            k = k.contiguous()
            v = v.contiguous()
        out = attend_eager(q, k, v, mask, self.width) if self.eager else attend_sdpa(q, k, v, mask)
        out = out.transpose(1, 2).contiguous()
        out = out.reshape(batch, length, -1)
        return self.o_proj(out)


class Layer(nn.Module):
    def __init__(self, config, index):
        super().__init__()
        self.self_attn = Attention(config)
        sparse = index >= config.first_k_dense_replace and index % config.moe_layer_freq == 0
        self.mlp = (
            SparseBlock(config) if sparse else GatedMLP(config.hidden_size, config.intermediate_size, config.hidden_act)
        )
        self.input_layernorm = RMSNorm(config.hidden_size)
        self.post_attention_layernorm = RMSNorm(config.hidden_size)

    def forward(self, hidden, mask, positions):
        residual = hidden
        hidden = self.input_layernorm(hidden)
        hidden = self.self_attn(hidden, mask, positions)
        hidden = residual + hidden
        residual = hidden
        hidden = self.post_attention_layernorm(hidden)
        hidden = self.mlp(hidden)
        hidden = residual + hidden
        return hidden


class DeepseekModel(RemoteDecoder):
    def __init__(self, config):
        indices = iter(range(config.num_hidden_layers))
        super().__init__(config, lambda config: Layer(config, next(indices)))


class DeepseekForCausalLM(RemoteCausal):
    config_class = config_class(
        "deepseek", hidden_act="silu", num_key_value_heads=None, attention_bias=False, moe_intermediate_size=1407,
        n_shared_experts=None, moe_layer_freq=1, first_k_dense_replace=0, norm_topk_prob=False, aux_loss_alpha=0.001,
        max_position_embeddings=2048, tie_word_embeddings=False,
    )  # fmt: skip
    decoder = DeepseekModel


MODELS = (DeepseekForCausalLM,)
