"""dots.ocr: a tower beside Qwen2's causal model.

Source: rednote-hilab/dots.ocr, modeling_dots_vision.py, modeling_dots_ocr.py and configuration_dots.py (on the Hub). The varlen
kernel of flash-attn is one call of PyTorch's over the whole row, which keeps as much; numbers of places that its code makes on
the processor are left out.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import PreTrainedModel
from transformers.models.qwen2.configuration_qwen2 import Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM

from loralens.lab.trace.hub.kimi_vl import attend_flash, attend_sdpa
from loralens.lab.trace.hub.parts import rotate_half

Grids = list[tuple[int, int]]


class DotsVisionConfig(PreTrainedConfig):
    """The tower's."""

    model_type = "dots_vit"
    embed_dim: int = 1536
    hidden_size: int = 1536
    intermediate_size: int = 4224
    num_hidden_layers: int = 42
    num_attention_heads: int = 12
    num_channels: int = 3
    patch_size: int = 14
    spatial_merge_size: int = 2
    temporal_patch_size: int = 1
    rms_norm_eps: float = 1e-5
    use_bias: bool = False
    attn_implementation: str = "flash_attention_2"
    post_norm: bool = True


class DotsOCRConfig(Qwen2Config):
    """The whole model's: Qwen2's fields, and the tower's beside them."""

    model_type = "dots_ocr"
    sub_configs: ClassVar = {"vision_config": DotsVisionConfig}
    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    image_token_id: int = 151665
    video_token_id: int = 151656

    def __post_init__(self, **words: Any) -> None:
        """The tower's as a config."""
        if not isinstance(self.vision_config, PreTrainedConfig):
            given = {key: value for key, value in (self.vision_config or {}).items() if key != "model_type"}
            self.vision_config = DotsVisionConfig(**given)
        super().__post_init__(**words)


class DotsNorm(nn.Module):
    """By the root mean square, in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def normed(self, x: torch.Tensor) -> torch.Tensor:
        """Shapes: any to the same."""
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shapes: (rows, width) to the same."""
        out = self.normed(x.float()).type_as(x)
        return out * self.weight


def dots_turned(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Shapes: (1, rows, heads, width) and (rows, width / 2) to the first."""
    dtype = x.dtype
    x = x.float()
    cos = angles.cos()
    sin = angles.sin()
    cos = cos.unsqueeze(1).repeat(1, 1, 2).unsqueeze(0).float()
    sin = sin.unsqueeze(1).repeat(1, 1, 2).unsqueeze(0).float()
    out = (x * cos) + (rotate_half(x) * sin)
    out = out.to(dtype)
    return out


class DotsVisionAttention(nn.Module):
    """One matrix for query, key and value."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        width = config.embed_dim
        self.heads = config.num_attention_heads
        self.qkv = nn.Linear(width, 3 * width, bias=config.use_bias)
        self.proj = nn.Linear(width, width, bias=config.use_bias)
        self.kernel = {"flash_attention_2": attend_flash, "sdpa": attend_sdpa}[config.attn_implementation]

    def forward(self, hidden: torch.Tensor, ends: list[int], angles: torch.Tensor) -> torch.Tensor:
        """Shapes: (rows, width) to the same."""
        rows = hidden.shape[0]
        q, k, v = self.qkv(hidden).reshape(rows, 3, self.heads, -1).permute(1, 0, 2, 3).unbind(0)
        q = dots_turned(q.unsqueeze(0), angles).squeeze(0)
        k = dots_turned(k.unsqueeze(0), angles).squeeze(0)
        out = self.kernel(q, k, v, ends)
        out = self.proj(out)
        return out


class DotsFeedForward(nn.Module):
    """Gated, by SiLU."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        width, wide, bias = config.embed_dim, config.intermediate_size, config.use_bias
        self.fc1, self.fc2 = nn.Linear(width, wide, bias=bias), nn.Linear(wide, width, bias=bias)
        self.fc3 = nn.Linear(width, wide, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shapes: (rows, width) to the same."""
        x = functional.silu(self.fc1(x)) * self.fc3(x)
        x = self.fc2(x)
        return x


class DotsVisionBlock(GradientCheckpointingLayer):
    """Pre-norm attention and MLP."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.attn = DotsVisionAttention(config)
        self.norm1 = DotsNorm(config.embed_dim, config.rms_norm_eps)
        self.mlp = DotsFeedForward(config)
        self.norm2 = DotsNorm(config.embed_dim, config.rms_norm_eps)

    def forward(self, hidden: torch.Tensor, ends: list[int], angles: torch.Tensor) -> torch.Tensor:
        """Shapes: (rows, width) to the same."""
        hidden = hidden + self.attn(self.norm1(hidden), ends, angles)
        hidden = hidden + self.mlp(self.norm2(hidden))
        return hidden


class DotsPatchEmbed(nn.Module):
    """A convolution over each patch, and a norm."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.sizes = (config.num_channels, config.temporal_patch_size, config.patch_size, config.patch_size)
        self.width = config.embed_dim
        self.proj = nn.Conv2d(config.num_channels, self.width, config.patch_size, stride=config.patch_size)
        self.norm = DotsNorm(self.width, config.rms_norm_eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shapes: (rows, values of a patch) to (rows, width)."""
        x = x.view(-1, *self.sizes)[:, :, 0]
        x = self.proj(x).view(-1, self.width)
        x = self.norm(x)
        return x


class DotsPreprocessor(nn.Module):
    """A name around the patches."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.patchifier = DotsPatchEmbed(config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the patches'."""
        return self.patchifier(x)


class DotsPatchMerger(nn.Module):
    """Neighbouring patches side by side, and two layers."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.width = config.embed_dim * config.spatial_merge_size**2
        self.ln_q = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(self.width, self.width), nn.GELU(), nn.Linear(self.width, config.hidden_size)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shapes: (rows, width) to (tokens, out)."""
        x = self.mlp(self.ln_q(x).view(-1, self.width))
        return x


class DotsVisionTransformer(PreTrainedModel):
    """The tower."""

    config_class = DotsVisionConfig
    supports_gradient_checkpointing = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.half = config.embed_dim // config.num_attention_heads // 2
        self.patch_embed = DotsPreprocessor(config)
        self.inv_freq = nn.Buffer(torch.empty(self.half // 2, dtype=torch.float32), persistent=False)
        self.blocks = nn.ModuleList([DotsVisionBlock(config) for _ in range(config.num_hidden_layers)])
        if config.post_norm:
            self.post_trunk_norm = DotsNorm(config.embed_dim, config.rms_norm_eps)
        self.merger = DotsPatchMerger(config)
        self.post_init()

    def angles_of(self, grids: Grids) -> torch.Tensor:
        """Of the row and the column of every patch. Shape: (rows, half of a head)."""
        rows, longest = sum(high * wide for high, wide in grids), max(max(grid) for grid in grids)
        table = torch.outer(torch.arange(longest, device=self.inv_freq.device).float(), self.inv_freq)
        return table[torch.zeros(rows, 2, dtype=torch.int64, device="cpu")].flatten(1)

    def forward(self, pixels: torch.Tensor, grids: Grids) -> torch.Tensor:
        """Shapes: (rows, values of a patch) to (tokens, out)."""
        first: Any = self.blocks[0]
        hidden = pixels.to(dtype=first.mlp.fc2.weight.dtype)
        hidden = self.patch_embed(hidden)
        angles = self.angles_of(grids)
        ends = [0]
        for high, wide in grids:
            ends.append(ends[-1] + high * wide)
        for block in self.blocks:
            hidden = block(hidden, ends, angles)
        if self.config.post_norm:
            hidden = self.post_trunk_norm(hidden)
        hidden = self.merger(hidden)
        return hidden


class DotsOCR(Qwen2ForCausalLM):
    """The whole model."""

    config_class = DotsOCRConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.vision_tower = DotsVisionTransformer(config.vision_config)
        self.post_init()

    def embedded(self, token_ids: torch.Tensor, pixels: Any, grids: Any, mask: torch.Tensor) -> torch.Tensor:
        """The embeddings, with pictures in their places. Shape: (batch, length, hidden)."""
        embeddings = self.get_input_embeddings()(token_ids)
        if pixels is not None:
            found = self.vision_tower(pixels, grids)
            places = mask.unsqueeze(-1).expand_as(embeddings)
            embeddings = embeddings.masked_scatter(places, found.type(embeddings.dtype))
        return embeddings

    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: Grids | None = None,
        labels: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **words: Any,
    ) -> Any:
        """Qwen2's output, loss and all."""
        mask = input_ids == self.config.image_token_id
        inputs_embeds = self.embedded(input_ids, pixel_values, image_grid_thw, mask)
        outputs = super().forward(inputs_embeds=inputs_embeds, attention_mask=attention_mask, labels=labels, **words)
        return outputs
