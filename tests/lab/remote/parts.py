"""What these models share, most of them having been written after the Llama of transformers 4.31 to 4.41."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import CausalLMOutputWithPast


def config_class(model_type: str, **defaults):
    """A configuration of that type; what a config.json leaves out has the code's default."""

    class Own(PretrainedConfig):
        def __init__(self, **given):
            super().__init__(**{**defaults, **given})

    Own.model_type = model_type
    Own.__name__ = Own.__qualname__ = f"{model_type.title().replace('_', '').replace('-', '')}Config"
    return Own


class RMSNorm(nn.Module):
    """Llama's: float32 until just before the weight."""

    def __init__(self, width, eps=1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, hidden):
        dtype = hidden.dtype
        hidden = hidden.to(torch.float32)
        variance = hidden.pow(2).mean(-1, keepdim=True)
        hidden = hidden * torch.rsqrt(variance + self.eps)
        return self.weight * hidden.to(dtype)


class ComputedRotary(nn.Module):
    """Cosines and sines of the positions at hand, in the dtype of what they turn (transformers 4.38 to 4.41)."""

    def __init__(self, width):
        super().__init__()
        self.register_buffer("inv_freq", 1.0 / (1e4 ** (torch.arange(0, width, 2).float() / width)), persistent=False)

    @torch.no_grad()
    def forward(self, x, positions):
        frequencies = self.inv_freq[None, :, None].float().expand(positions.shape[0], -1, 1)
        places = positions[:, None, :].float()
        with torch.autocast(device_type=x.device.type, enabled=False):
            angles = (frequencies.float() @ places.float()).transpose(1, 2)
            both = torch.cat((angles, angles), dim=-1)
            cos, sin = both.cos(), both.sin()
        return cos.to(dtype=x.dtype), sin.to(dtype=x.dtype)


class VarianceNorm(nn.Module):
    """Only the variance is taken of a float32 copy (MiniCPM; Baichuan's, whose weight has the same dtype)."""

    def __init__(self, width, eps=1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, hidden):
        dtype = hidden.dtype
        variance = hidden.to(torch.float32).pow(2).mean(dim=-1, keepdim=True)
        hidden = (hidden * torch.rsqrt(variance + self.eps)).to(dtype)
        return hidden * self.weight


class CachedRotary(nn.Module):
    """Tables for every position that the model knows, made once in each layer (transformers 4.31 to 4.36)."""

    def __init__(self, width, positions, dtype=None):
        super().__init__()
        self.register_buffer("inv_freq", 1.0 / (1e4 ** (torch.arange(0, width, 2).float() / width)), persistent=False)
        angles = torch.outer(torch.arange(positions).to(self.inv_freq.dtype), self.inv_freq)
        both = torch.cat((angles, angles), dim=-1)
        dtype = dtype or torch.get_default_dtype()
        self.register_buffer("cos_cached", both.cos().to(dtype), persistent=False)
        self.register_buffer("sin_cached", both.sin().to(dtype), persistent=False)

    def forward(self, x, length):
        return self.cos_cached[:length].to(dtype=x.dtype), self.sin_cached[:length].to(dtype=x.dtype)


def rotate_half(x):
    """The second half negated, then the first."""
    first = x[..., : x.shape[-1] // 2]
    second = x[..., x.shape[-1] // 2 :]
    return torch.cat((-second, first), dim=-1)


def rotated(q, k, cos, sin):
    """Rotary embedding by halves."""
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    q_turned = (q * cos) + (rotate_half(q) * sin)
    k_turned = (k * cos) + (rotate_half(k) * sin)
    return q_turned, k_turned


def repeated(x, times):
    """Keys or values for all heads: a copy, unless there are as many already."""
    batch, heads, length, width = x.shape
    if times == 1:
        return x
    return x[:, :, None, :, :].expand(batch, heads, times, length, width).reshape(batch, heads * times, length, width)


def attend_eager(q, k, v, mask, width):
    """Scores, softmax in float32, product."""
    weights = torch.matmul(q, k.transpose(2, 3)) / math.sqrt(width)
    if mask is not None:
        weights = weights + mask
    weights = nn.functional.softmax(weights, dim=-1, dtype=torch.float32).to(q.dtype)
    return torch.matmul(weights, v)


def attend_sdpa(q, k, v, mask):
    """PyTorch's kernels."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=0.0, is_causal=mask is None)


def additive_mask(attention_mask, hidden):
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


class GatedMLP(nn.Module):
    """Llama's."""

    def __init__(self, hidden, intermediate, act):
        super().__init__()
        self.gate_proj = nn.Linear(hidden, intermediate, bias=False)
        self.up_proj = nn.Linear(hidden, intermediate, bias=False)
        self.down_proj = nn.Linear(intermediate, hidden, bias=False)
        self.act = ACT2FN[act]

    def forward(self, x):
        return self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x))


class RemoteModel(PreTrainedModel):
    """A causal language model of such code."""

    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True

    def _init_weights(self, module):
        """Weights are empty."""


class RemoteDecoder(RemoteModel):
    """The stack under the head: embedding, layers of one signature, final norm."""

    embedding_name = "embed_tokens"

    def __init__(self, config, layer, norm=RMSNorm):
        super().__init__(config)
        setattr(self, self.embedding_name, nn.Embedding(config.vocab_size, config.hidden_size))
        self.layers = nn.ModuleList(layer(config) for _ in range(config.num_hidden_layers))
        self.norm = norm(config.hidden_size)
        self.gradient_checkpointing = False

    def get_input_embeddings(self):
        return getattr(self, self.embedding_name)

    def mask(self, attention_mask, embeddings):
        """None where the kernel can rely on being causal."""
        if self.config._attn_implementation == "sdpa" and attention_mask is None:
            return None
        return additive_mask(attention_mask, embeddings)

    def embed(self, input_ids):
        """Token embeddings."""
        return self.get_input_embeddings()(input_ids)

    def beside(self, embeddings, positions):
        """What layers are called with beyond mask and positions."""
        return ()

    def forward(self, input_ids=None, attention_mask=None):
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
    decoder = RemoteDecoder

    def __init__(self, config):
        super().__init__(config)
        if getattr(config, "num_key_value_heads", 0) is None:
            config.num_key_value_heads = config.num_attention_heads
        self.model = self.decoder(config)
        setattr(self, self.head_name, nn.Linear(config.hidden_size, config.vocab_size, bias=False))
        self.post_init()

    def get_input_embeddings(self):
        return self.model.get_input_embeddings()

    def get_output_embeddings(self):
        return getattr(self, self.head_name)

    def head(self, hidden):
        """Logits."""
        return getattr(self, self.head_name)(hidden)

    def forward(self, input_ids=None, attention_mask=None, labels=None, **_):
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
