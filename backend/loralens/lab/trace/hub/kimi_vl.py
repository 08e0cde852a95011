"""Kimi-VL: MoonViT and a projector before DeepSeek-V3's causal model, which keeps its head.

Source: moonshotai/Kimi-VL-A3B-Instruct, configuration_kimi_vl.py and modeling_kimi_vl.py (as ByteDance-Seed/VeOmni and vLLM have
them). The language model and its loss are transformers' own DeepSeek-V3; an embedding that is a leaf with a gradient is cloned
before pictures are put into it, as ms-swift does (`patch_output_clone`), since PyTorch refuses to write into it. The varlen kernel
of flash-attn is one call of PyTorch's over the whole row, which keeps as much.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional
from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.models.deepseek_v3.configuration_deepseek_v3 import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3ForCausalLM

SIDE = 512  # of the table of rotations
SDPA = "sdpa"


class MoonViTConfig(PreTrainedConfig):
    """The tower's."""

    model_type = "moonvit"
    patch_size: int = 14
    init_pos_emb_height: int = 64
    init_pos_emb_width: int = 64
    num_attention_heads: int = 16
    num_hidden_layers: int = 27
    hidden_size: int = 1152
    intermediate_size: int = 4304
    merge_kernel_size: tuple[int, int] | list[int] = (2, 2)
    kernel: str = SDPA


class KimiVLConfig(PreTrainedConfig):
    """The whole model's."""

    model_type = "kimi_vl"
    sub_configs: ClassVar = {"text_config": DeepseekV3Config, "vision_config": MoonViTConfig}
    text_config: dict[str, Any] | PreTrainedConfig | None = None
    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    media_placeholder_token_id: int = 163605
    tie_word_embeddings: bool = False

    def __post_init__(self, **words: Any) -> None:
        """Both parts as configs."""
        for name, kind in self.sub_configs.items():
            given = getattr(self, name)
            if not isinstance(given, PreTrainedConfig):
                setattr(self, name, kind(**{key: value for key, value in (given or {}).items() if key != "model_type"}))
        super().__post_init__(**words)


class MoonViTPositions(nn.Module):
    """A learned grid, resampled to the size of each picture."""

    def __init__(self, config: MoonViTConfig) -> None:
        super().__init__()
        sides = config.init_pos_emb_height, config.init_pos_emb_width
        self.weight = nn.Parameter(torch.empty(*sides, config.hidden_size))

    def forward(self, x: torch.Tensor, grids: list[tuple[int, int]]) -> torch.Tensor:
        """Shapes: (rows, hidden) to the same."""
        found = []
        for grid in grids:
            if grid == tuple(self.weight.shape[:-1]):
                found.append(self.weight.flatten(end_dim=1))
                continue
            image = self.weight.permute(2, 0, 1).unsqueeze(0)
            laid = functional.interpolate(image, size=grid, mode="bicubic").squeeze(0)
            found.append(laid.permute(1, 2, 0).flatten(end_dim=1))
        return x + torch.cat(found)


class MoonViTPatches(nn.Module):
    """A convolution over each patch, and its place."""

    def __init__(self, config: MoonViTConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.hidden_size, kernel_size=config.patch_size, stride=config.patch_size)
        self.pos_emb = MoonViTPositions(config)

    def forward(self, pixels: torch.Tensor, grids: list[tuple[int, int]]) -> torch.Tensor:
        """Shapes: (rows, 3, patch, patch) to (rows, hidden)."""
        x = self.proj(pixels).view(pixels.size(0), -1)
        return self.pos_emb(x, grids)


class MoonViTMLP(nn.Module):
    """The MLP."""

    def __init__(self, hidden: int, wide: int) -> None:
        super().__init__()
        self.fc0, self.fc1 = nn.Linear(hidden, wide), nn.Linear(wide, hidden)
        self.act = ACT2FN["gelu_pytorch_tanh"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shapes: (rows, hidden) to the same."""
        x = self.fc0(x)
        x = self.act(x)
        return self.fc1(x)


def turned(q: torch.Tensor, k: torch.Tensor, rotations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Neighbouring numbers as complex ones, times a rotation. Shapes: (rows, heads, width) to the same."""
    rotations = rotations.unsqueeze(-2)
    complex_q = torch.view_as_complex(q.float().view(*q.shape[:-1], -1, 2))
    complex_k = torch.view_as_complex(k.float().view(*k.shape[:-1], -1, 2))
    out_q = torch.view_as_real(complex_q * rotations).flatten(-2)
    out_k = torch.view_as_real(complex_k * rotations).flatten(-2)
    return out_q.type_as(q), out_k.type_as(k)


def seen_by_mask(rows: int, ends: list[int], device: torch.device) -> torch.Tensor:
    """Every picture sees itself. Shape: (1, rows, rows)."""
    mask = torch.zeros([1, rows, rows], device=device, dtype=torch.bool)
    for first, last in pairwise(ends):
        mask[..., first:last, first:last] = True
    return mask


def attend_eager(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ends: list[int]) -> torch.Tensor:
    """Scores of all rows; the mask is added. Shapes: (rows, heads, width) to (rows, hidden)."""
    rows = q.shape[0]
    mask = seen_by_mask(rows, ends, q.device)
    q, k, v = q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1)
    weights = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    weights += mask
    weights = torch.softmax(weights, dim=-1, dtype=torch.float32).to(q.dtype)
    out = weights @ v
    out = out.transpose(0, 1)
    return out.reshape(rows, -1)


def attend_sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ends: list[int]) -> torch.Tensor:
    """Three dimensions, which no fused kernel takes. Shapes: (rows, heads, width) to (rows, hidden)."""
    rows = q.shape[0]
    mask = seen_by_mask(rows, ends, q.device)
    q, k, v = q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1)
    out = functional.scaled_dot_product_attention(q, k, v, mask, dropout_p=0.0)
    out = out.transpose(0, 1)
    return out.reshape(rows, -1)


def attend_flash(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ends: list[int]) -> torch.Tensor:
    """One call for all pictures. Shapes: (rows, heads, width) to (rows, hidden)."""
    rows = q.shape[0]
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))
    out = functional.scaled_dot_product_attention(q, k, v)
    return out.squeeze(0).transpose(0, 1).reshape(rows, -1)


KERNELS = {SDPA: attend_sdpa, "eager": attend_eager, "flash": attend_flash}


class MoonViTLayer(nn.Module):
    """Pre-norm attention with one matrix for query, key and value, and an MLP."""

    def __init__(self, config: MoonViTConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.heads, self.kernel = config.num_attention_heads, KERNELS[config.kernel]
        self.norm0, self.norm1 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.mlp = MoonViTMLP(hidden, config.intermediate_size)
        self.wqkv, self.wo = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)

    def attention(self, x: torch.Tensor, ends: list[int], rotations: torch.Tensor) -> torch.Tensor:
        """Shapes: (rows, hidden) to the same."""
        packed = self.wqkv(x)
        packed = packed.view(*packed.size()[:-1], 3, self.heads, -1)
        q, k, v = torch.unbind(packed, dim=-3)
        q, k = turned(q, k, rotations)
        out = self.kernel(q, k, v, ends)
        out = self.wo(out)
        return out

    def forward(self, hidden: torch.Tensor, ends: list[int], rotations: torch.Tensor) -> torch.Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.norm0(hidden)
        out = self.attention(hidden, ends, rotations)
        hidden = residual + out
        residual = hidden
        hidden = self.mlp(self.norm1(hidden))
        hidden = residual + hidden
        return hidden


class MoonViTEncoder(nn.Module):
    """The layers. The table of rotations is made in the first step and stays: it is held from the start here."""

    def __init__(self, config: MoonViTConfig) -> None:
        super().__init__()
        self.pairs = config.hidden_size // config.num_attention_heads // 2
        table = torch.empty(SIDE, SIDE, self.pairs, dtype=torch.complex64)
        self.table = nn.Buffer(table, persistent=False)
        self.blocks = nn.ModuleList([MoonViTLayer(config) for _ in range(config.num_hidden_layers)])
        self.final_layernorm = nn.LayerNorm(config.hidden_size)

    def forward(self, hidden: torch.Tensor, grids: list[tuple[int, int]]) -> torch.Tensor:
        """Shapes: (rows, hidden) to the same."""
        rotations = torch.cat([self.table[:high, :wide].reshape(-1, self.pairs) for high, wide in grids], dim=0)
        ends = [0]
        for high, wide in grids:
            ends.append(ends[-1] + high * wide)
        for block in self.blocks:
            hidden = block(hidden, ends, rotations)
        hidden = self.final_layernorm(hidden)
        return hidden


def merged(x: torch.Tensor, grids: list[tuple[int, int]], kernel: tuple[int, int]) -> list[torch.Tensor]:
    """Neighbouring patches side by side. Shapes: (rows, hidden) to (tokens of a picture, patches of a token, hidden) each."""
    found, done, (down, across) = [], 0, kernel
    for high, wide in grids:
        part = x[done : done + high * wide]
        laid = part.view(high // down, down, wide // across, across, x.size(-1)).permute(0, 2, 1, 3, 4).contiguous()
        found.append(laid.view((high // down) * (wide // across), down * across, -1))
        done += high * wide
    return found


class MoonViT(PreTrainedModel):
    """The tower; checkpointing does not reach its layers."""

    config_class = MoonViTConfig

    def __init__(self, config: MoonViTConfig) -> None:
        super().__init__(config)
        self.patch_embed = MoonViTPatches(config)
        self.encoder = MoonViTEncoder(config)

    def forward(self, pixels: torch.Tensor, grids: list[tuple[int, int]]) -> list[torch.Tensor]:
        """Shapes: (rows, 3, patch, patch) to (tokens of a picture, patches of a token, hidden) each."""
        hidden = self.patch_embed(pixels, grids)
        hidden = self.encoder(hidden, grids)
        return merged(hidden, grids, tuple(self.config.merge_kernel_size))


class MoonViTProjector(nn.Module):
    """A norm on every patch, and two layers on a token's."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        v = config.vision_config
        down, across = v.merge_kernel_size
        self.width = v.hidden_size * down * across
        self.pre_norm = nn.LayerNorm(v.hidden_size, eps=1e-5)
        self.linear_1 = nn.Linear(self.width, self.width)
        self.act = ACT2FN["gelu"]
        self.linear_2 = nn.Linear(self.width, config.text_config.hidden_size)

    def forward(self, states: list[torch.Tensor]) -> torch.Tensor:
        """Shapes: (tokens, patches of a token, hidden) each to (tokens, hidden of the language model)."""
        joined = torch.cat(states, dim=0)
        hidden = self.pre_norm(joined).view(-1, self.width)
        hidden = self.linear_1(hidden)
        hidden = self.act(hidden)
        return self.linear_2(hidden)


def places_of(token_ids: torch.Tensor, placeholder: int) -> torch.Tensor:
    """Where pictures' tokens go; a trace is told how many there are."""
    return token_ids == placeholder


class KimiVL(PreTrainedModel):
    """The whole model."""

    config_class = KimiVLConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.vision_tower = MoonViT(config.vision_config)
        self.multi_modal_projector = MoonViTProjector(config)
        self.language_model = DeepseekV3ForCausalLM._from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The language model's."""
        return self.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """The language model's head."""
        return self.language_model.get_output_embeddings()

    def features(self, pixels: torch.Tensor, grids: list[tuple[int, int]]) -> torch.Tensor:
        """Shapes: (rows, 3, patch, patch) to (tokens, hidden of the language model)."""
        found = self.vision_tower(pixels, grids)
        found = self.multi_modal_projector(found)
        return found

    def put(self, embeddings: torch.Tensor, token_ids: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
        """The pictures' tokens in their places. Shapes: (batch, length, hidden) to the same."""
        batch, length, hidden = embeddings.shape
        embeddings = embeddings.reshape(-1, hidden)
        token_ids = token_ids.flatten()
        embeddings[places_of(token_ids, self.config.media_placeholder_token_id)] = found
        return embeddings.reshape(batch, length, hidden)

    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        image_grid_hws: list[tuple[int, int]] | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **words: Any,
    ) -> Any:
        """The language model's output, loss and all."""
        inputs_embeds = self.get_input_embeddings()(input_ids)
        if pixel_values is not None and image_grid_hws is not None:
            pixel_values = pixel_values.to(self.vision_tower.dtype)
            image_features = self.features(pixel_values, image_grid_hws)
            inputs_embeds = inputs_embeds.to(image_features.dtype)
            if inputs_embeds.is_leaf and inputs_embeds.requires_grad:
                inputs_embeds = inputs_embeds.clone()
            inputs_embeds = self.put(inputs_embeds, input_ids, image_features)
        outputs = self.language_model(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, labels=labels, **words
        )
        return outputs
