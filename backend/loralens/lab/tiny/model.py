"""A small real decoder-only language model: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

    config = TinyConfig(hidden_size=96, num_hidden_layers=3)
    model = TinyLM(config)                      # parameters drawn from torch's global generator
    logits = model(input_ids)                   # (batch, length) -> (batch, length, vocab_size)
    logits, cache = model.step(ids, cache)      # generation with a key/value cache; cache starts as None

Module names are those of Hugging Face's Llama (`model.layers.0.self_attn.q_proj`, ... `lm_head`), so that
`transformers.LlamaForCausalLM(LlamaConfig(**config.to_hf()))` loads `model.state_dict()` as it is and PEFT's
adapters for the one fit the other. Nothing here knows about training, files or adapters.

Source: RMSNorm, rotary embedding and SwiGLU as in Touvron et al. 2023, arXiv:2302.13971, section 2.2.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from loralens.core.errors import InvalidInput

KeyValueCache = list[tuple[Tensor, Tensor]]

LINEAR_NAMES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class TinyConfig:
    """Sizes of the model, under Hugging Face's names."""

    vocab_size: int = 1024
    hidden_size: int = 96
    intermediate_size: int = 256
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    num_key_value_heads: int = 4
    max_position_embeddings: int = 512
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads or (self.hidden_size // self.num_attention_heads) % 2:
            raise InvalidInput(
                f"hidden_size {self.hidden_size} must split into {self.num_attention_heads} heads of even size",
                field="hidden_size",
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise InvalidInput(
                f"num_attention_heads {self.num_attention_heads} must be a multiple of num_key_value_heads "
                f"{self.num_key_value_heads}",
                field="num_key_value_heads",
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    def to_hf(self) -> dict[str, object]:
        """The config.json of the same model as a Llama; also what `loralens.estimate` reads."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            **asdict(self),
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "torch_dtype": "float32",
        }


class TinyRMSNorm(nn.Module):
    """Scale each vector to unit root mean square, times a learned weight (hidden_size,)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self.weight.shape, self.weight, self.eps)


def rotary_tables(config: TinyConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles, each (max_position_embeddings, head_dim).

    Source: Su et al. 2021, arXiv:2104.09864, in Llama's half-split layout (the two halves of a head rotate together).
    """
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.int64).float() / config.head_dim
    frequencies = 1.0 / (config.rope_theta**exponents)
    angles = torch.outer(torch.arange(config.max_position_embeddings).float(), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary positions. Shapes: x (batch, heads, length, head_dim); cos, sin (length, head_dim)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class TinyAttention(nn.Module):
    """Causal self-attention with rotary positions; (batch, length, hidden) -> the same shape."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        key_value_size = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, key_value_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, key_value_size, bias=False)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, past: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        batch, length, _ = x.shape
        shape = (batch, length, -1, self.config.head_dim)
        query = rotate(self.q_proj(x).view(shape).transpose(1, 2), cos, sin)
        key = rotate(self.k_proj(x).view(shape).transpose(1, 2), cos, sin)
        value = self.v_proj(x).view(shape).transpose(1, 2)
        if past is not None:
            key = torch.cat((past[0], key), dim=2)
            value = torch.cat((past[1], value), dim=2)
        present = (key, value)
        groups = self.config.num_attention_heads // self.config.num_key_value_heads
        if groups > 1:
            key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
        if past is None:
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:
            # With a cache the queries are the last `length` positions, so the causal triangle is shifted right.
            total = key.shape[2]
            mask = torch.ones(length, total, dtype=torch.bool, device=x.device).tril(total - length)
            mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1)), present


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)). Source: Shazeer 2020, arXiv:2002.05202."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return hidden


class Layer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.self_attn = TinyAttention(config)
        self.mlp = MLP(config)
        self.input_layernorm = TinyRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = TinyRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, past: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        mixed, present = self.self_attn(self.input_layernorm(x), cos, sin, past)
        x = x + mixed
        return x + self.mlp(self.post_attention_layernorm(x)), present


class Decoder(nn.Module):
    """Embedding, layers and final norm: everything but the head."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = TinyRMSNorm(config.hidden_size, config.rms_norm_eps)
        cos, sin = rotary_tables(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, input_ids: Tensor, cache: KeyValueCache | None = None) -> tuple[Tensor, KeyValueCache]:
        start = cache[0][0].shape[2] if cache else 0
        stop = start + input_ids.shape[1]
        if stop > self.cos.shape[0]:
            raise InvalidInput(
                f"the sequence reaches position {stop}, the model has {self.cos.shape[0]}", field="sequence_length"
            )
        cos, sin = self.cos[start:stop], self.sin[start:stop]
        x = self.embed_tokens(input_ids)
        present: KeyValueCache = []
        for index, layer in enumerate(self.layers):
            x, kept = layer(x, cos, sin, cache[index] if cache else None)
            present.append(kept)
        return self.norm(x), present


class TinyLM(nn.Module):
    """The language model: `model` (decoder) and `lm_head`, tied to the embedding when the config says so."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        _initialise(self)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        """Next-token logits. Shapes: input_ids (batch, length) of int64 -> (batch, length, vocab_size)."""
        hidden, _ = self.model(input_ids)
        logits: Tensor = self.lm_head(hidden)
        return logits

    def step(self, input_ids: Tensor, cache: KeyValueCache | None = None) -> tuple[Tensor, KeyValueCache]:
        """Logits of the last position, (batch, vocab_size), and the grown cache to pass to the next call."""
        hidden, present = self.model(input_ids, cache)
        return self.lm_head(hidden[:, -1]), present


@torch.no_grad()
def _initialise(model: TinyLM) -> None:
    # Unit variance through each layer; the two layers that write to the residual stream are scaled down by
    # sqrt(2 * layers) so that the stream does not grow with depth (as GPT-2's). Llama's fixed 0.02 is for wide
    # models: at 96 channels it cost about 1 nat after 250 steps.
    residual_scale = (2 * model.config.num_hidden_layers) ** -0.5
    for name, parameter in model.named_parameters():
        if "embed_tokens" in name:
            nn.init.normal_(parameter, std=0.05)
        elif parameter.dim() == 2:
            scale = residual_scale if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
            nn.init.normal_(parameter, std=scale * parameter.shape[1] ** -0.5)


def parameter_count(model: nn.Module, *, trainable: bool = False) -> int:
    """Parameters of the model, tied weights counted once; only those that train when `trainable`."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)
