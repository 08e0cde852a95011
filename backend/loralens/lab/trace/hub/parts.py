"""What these models share, most of them having been written after the Llama of transformers 4.31 to 4.41."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import CausalLMOutputWithPast


def own_config(model_type: str, **defaults: Any) -> Any:
    """A configuration of that type; what a config.json leaves out has the code's default."""

    class HubOwn(PretrainedConfig):
        def __init__(self, **given: Any) -> None:
            super().__init__(**{**defaults, **given})

    HubOwn.model_type = model_type
    HubOwn.__name__ = HubOwn.__qualname__ = f"{model_type.title().replace('_', '').replace('-', '')}Config"
    return HubOwn


class HubRMSNorm(nn.Module):
    """Llama's: float32 until just before the weight."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        dtype = hidden.dtype
        hidden = hidden.to(torch.float32)
        variance = hidden.pow(2).mean(-1, keepdim=True)
        hidden = hidden * torch.rsqrt(variance + self.eps)
        return self.weight * hidden.to(dtype)


class ComputedRotary(nn.Module):
    """Cosines and sines of the positions at hand, in the dtype of what they turn (transformers 4.38 to 4.41)."""

    inv_freq: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("inv_freq", 1.0 / (1e4 ** (torch.arange(0, width, 2).float() / width)), persistent=False)

    @torch.no_grad()
    def forward(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        frequencies = self.inv_freq[None, :, None].float().expand(positions.shape[0], -1, 1)
        places = positions[:, None, :].float()
        with torch.autocast(device_type=x.device.type, enabled=False):
            angles = (frequencies.float() @ places.float()).transpose(1, 2)
            both = torch.cat((angles, angles), dim=-1)
            cos, sin = both.cos(), both.sin()
        return cos.to(dtype=x.dtype), sin.to(dtype=x.dtype)


class HubVarianceNorm(HubRMSNorm):
    """Only the variance is taken of a float32 copy (MiniCPM; Baichuan's, whose weight has the same dtype)."""

    def forward(self, hidden: Tensor) -> Tensor:
        dtype = hidden.dtype
        variance = hidden.to(torch.float32).pow(2).mean(dim=-1, keepdim=True)
        hidden = (hidden * torch.rsqrt(variance + self.eps)).to(dtype)
        return hidden * self.weight


class CachedRotary(nn.Module):
    """Tables for every position that the model knows, made once in each layer (transformers 4.31 to 4.36)."""

    inv_freq: Tensor
    cos_cached: Tensor
    sin_cached: Tensor

    def __init__(self, width: int, positions: int, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.register_buffer("inv_freq", 1.0 / (1e4 ** (torch.arange(0, width, 2).float() / width)), persistent=False)
        angles = torch.outer(torch.arange(positions).to(self.inv_freq.dtype), self.inv_freq)
        both = torch.cat((angles, angles), dim=-1)
        dtype = dtype or torch.get_default_dtype()
        self.register_buffer("cos_cached", both.cos().to(dtype), persistent=False)
        self.register_buffer("sin_cached", both.sin().to(dtype), persistent=False)

    def forward(self, x: Tensor, length: int) -> tuple[Tensor, Tensor]:
        return self.cos_cached[:length].to(dtype=x.dtype), self.sin_cached[:length].to(dtype=x.dtype)


def rotate_half(x: Tensor) -> Tensor:
    """The second half negated, then the first."""
    first = x[..., : x.shape[-1] // 2]
    second = x[..., x.shape[-1] // 2 :]
    return torch.cat((-second, first), dim=-1)


def rotated(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Rotary embedding by halves."""
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    q_turned = (q * cos) + (rotate_half(q) * sin)
    k_turned = (k * cos) + (rotate_half(k) * sin)
    return q_turned, k_turned


def repeated(x: Tensor, times: int) -> Tensor:
    """Keys or values for all heads: a copy, unless there are as many already."""
    batch, heads, length, width = x.shape
    if times == 1:
        return x
    return x[:, :, None, :, :].expand(batch, heads, times, length, width).reshape(batch, heads * times, length, width)


def attend_eager(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, width: int) -> Tensor:
    """Scores, softmax in float32, product."""
    weights = torch.matmul(q, k.transpose(2, 3)) / math.sqrt(width)
    if mask is not None:
        weights = weights + mask
    weights = nn.functional.softmax(weights, dim=-1, dtype=torch.float32).to(q.dtype)
    return torch.matmul(weights, v)


def attend_sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """PyTorch's kernels."""
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=0.0, is_causal=mask is None)


def additive_mask(attention_mask: Tensor | None, hidden: Tensor) -> Tensor:
    """Causal and padded, in the dtype of the embeddings, (batch, 1, length, length)."""
    batch, length = hidden.shape[:2]
    least = torch.finfo(hidden.dtype).min
    mask = torch.full((length, length), least, dtype=hidden.dtype, device=hidden.device).triu(diagonal=1)
    mask = mask[None, None, :, :].expand(batch, 1, -1, -1)
    if attention_mask is not None:
        mask = mask.clone()
        padded = mask.eq(0.0) * attention_mask[:, None, None, :].eq(0.0)
        mask = mask.masked_fill(padded, least)
    return mask


class HubGatedMLP(nn.Module):
    """Llama's."""

    def __init__(self, hidden: int, intermediate: int, act: str) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, intermediate, bias=False)
        self.up_proj = nn.Linear(hidden, intermediate, bias=False)
        self.down_proj = nn.Linear(intermediate, hidden, bias=False)
        self.act = ACT2FN[act]

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x))


Turned = tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, ...] | None]
"""Query, key and value after the rotary embedding, and what else their code holds by name until its attention is through."""


class HubRemoteAttention(nn.Module):
    """What follows on query, key and value. `output_name`: of the last matrix."""

    output_name = "o_proj"

    def __init__(self, config: Any, width: int | None = None) -> None:
        super().__init__()
        self.heads, self.keys = config.num_attention_heads, config.num_key_value_heads or config.num_attention_heads
        self.width = width or config.hidden_size // self.heads
        self.groups = self.heads // self.keys
        self.eager = config._attn_implementation == "eager"

    def turned(self, hidden: Tensor, positions: Tensor, *beside: Any) -> Turned:
        """Shapes: hidden (batch, length, width of the model), each result (batch, heads, length, width of a head)."""
        raise NotImplementedError

    def forward(self, hidden: Tensor, mask: Tensor | None, positions: Tensor, *beside: Any) -> Tensor:
        batch, length, _ = hidden.size()
        (q, k, v), _held = self.turned(hidden, positions, *beside)
        k = repeated(k, self.groups)
        v = repeated(v, self.groups)
        if not self.eager and mask is not None:
            q = q.contiguous()
            k = k.contiguous()
            v = v.contiguous()
        out = attend_eager(q, k, v, mask, self.width) if self.eager else attend_sdpa(q, k, v, mask)
        out = out.transpose(1, 2).contiguous()
        out = out.reshape(batch, length, -1)
        return getattr(self, self.output_name)(out)


class ProjectedAttention(HubRemoteAttention):
    """A matrix each for query, key and value, as Llama has them."""

    def __init__(self, config: Any, rotary: Any) -> None:
        super().__init__(config)
        bias = config.attention_bias
        self.q_proj = nn.Linear(config.hidden_size, self.heads * self.width, bias=bias)
        self.k_proj = nn.Linear(config.hidden_size, self.keys * self.width, bias=bias)
        self.v_proj = nn.Linear(config.hidden_size, self.keys * self.width, bias=bias)
        self.o_proj = nn.Linear(self.heads * self.width, config.hidden_size, bias=bias)
        self.rotary_emb = rotary

    def rotate(self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Query and key, turned by the tables' rows of the positions."""
        return rotated(q, k, cos[positions], sin[positions])

    def turned(self, hidden: Tensor, positions: Tensor, *beside: Any) -> Turned:
        batch, length, _ = hidden.size()
        q = self.q_proj(hidden)
        k = self.k_proj(hidden)
        v = self.v_proj(hidden)
        q = q.view(batch, length, self.heads, self.width).transpose(1, 2)
        k = k.view(batch, length, self.keys, self.width).transpose(1, 2)
        v = v.view(batch, length, self.keys, self.width).transpose(1, 2)
        cos, sin = self.rotary_emb(v, k.shape[-2])
        q, k = self.rotate(q, k, cos, sin, positions)
        return (q, k, v), (cos, sin)


class RemoteModel(PreTrainedModel):
    """A causal language model of such code."""

    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True

    def _init_weights(self, module: Any) -> None:
        """Weights are empty."""


class HubRemoteDecoder(RemoteModel):
    """The stack under the head: embedding, layers of one signature, final norm."""

    embedding_name = "embed_tokens"

    def __init__(self, config: Any, layer: Any, norm: Any = HubRMSNorm) -> None:
        super().__init__(config)
        setattr(self, self.embedding_name, nn.Embedding(config.vocab_size, config.hidden_size))
        self.layers = nn.ModuleList(layer(config) for _ in range(config.num_hidden_layers))
        self.norm = norm(config.hidden_size)
        self.gradient_checkpointing = False

    def get_input_embeddings(self) -> Any:
        return getattr(self, self.embedding_name)

    def mask(self, attention_mask: Tensor | None, embeddings: Tensor) -> Tensor | None:
        """None where the kernel can rely on being causal."""
        if self.config._attn_implementation == "sdpa" and attention_mask is None:
            return None
        return additive_mask(attention_mask, embeddings)

    def embed(self, input_ids: Tensor) -> Tensor:
        """Token embeddings."""
        return self.get_input_embeddings()(input_ids)

    def beside(self, embeddings: Tensor, positions: Tensor) -> Any:
        """What layers are called with beyond mask and positions."""
        return ()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        embeddings = self.embed(input_ids)
        positions = torch.arange(embeddings.shape[1], device=embeddings.device).unsqueeze(0)
        mask = self.mask(attention_mask, embeddings)
        beside = self.beside(embeddings, positions)
        hidden = embeddings
        for layer in self.layers:
            if self.gradient_checkpointing and self.training:
                hidden = self._gradient_checkpointing_func(layer.__call__, hidden, mask, positions, *beside)
            else:
                hidden = layer(hidden, mask, positions, *beside)
        hidden = self.norm(hidden)
        return hidden


class RemoteCausal(RemoteModel):
    """Stack, head and loss."""

    head_name = "lm_head"
    decoder: Any = HubRemoteDecoder

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if getattr(config, "num_key_value_heads", 0) is None:
            config.num_key_value_heads = config.num_attention_heads
        self.model = self.decoder(config)
        setattr(self, self.head_name, nn.Linear(config.hidden_size, config.vocab_size, bias=False))
        self.post_init()

    def get_input_embeddings(self) -> Any:
        return self.model.get_input_embeddings()

    def get_output_embeddings(self) -> Any:
        return getattr(self, self.head_name)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits."""
        return getattr(self, self.head_name)(hidden)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **_: Any,
    ) -> Any:
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask)
        logits = self.head(hidden)
        logits = logits.float()
        loss = None
        if labels is not None:
            cut = logits[..., :-1, :].contiguous()
            following = labels[..., 1:].contiguous()
            cut = cut.view(-1, cut.size(-1))
            following = following.view(-1)
            loss = nn.CrossEntropyLoss()(cut, following)
        return CausalLMOutputWithPast(loss=loss, logits=logits)
