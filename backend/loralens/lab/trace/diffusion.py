"""Diffusion transformers of diffusers with the loss of its training scripts: the transformer alone, its inputs made before.

`sequence_length` counts the prompt's tokens, `image_size` is the picture (1024 x 1024 where nothing is said), and
`video_frames` the frames of a video (81). Text encoders and autoencoder are not part of it: their results come as the batch, as
where they are cached.

Source: diffusers 0.42.1, models/transformers/transformer_{flux,sd3,qwenimage,wan}.py and
examples/dreambooth/train_dreambooth_lora_{flux,sd3,qwen_image}.py (target modules, inputs, the weighted squared error in float32).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.question.recipe import Recipe
from loralens.extras import needing
from loralens.lab.trace.foreign import Foreign, empty

CLASS: Final = "_class_name"
MAX_BLOCKS: Final = 256
_PICTURE, _FRAMES, _COMPRESSION = (1024, 1024), 81, 8
_JOINT: Final = (
    "attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0", "attn.add_k_proj", "attn.add_q_proj", "attn.add_v_proj",
    "attn.to_add_out",
)  # fmt: skip
_PLAIN: Final = ("to_k", "to_q", "to_v", "to_out.0")

Inputs = Callable[[Any, Recipe, torch.dtype], dict[str, Any]]


def _grid(recipe: Recipe) -> tuple[int, int]:
    """Rows and columns of latents."""
    height, width = recipe.image_size or _PICTURE
    return height // _COMPRESSION, width // _COMPRESSION


def _packed(recipe: Recipe) -> int:
    """Tokens of a picture: two by two latents."""
    rows, columns = _grid(recipe)
    return (rows // 2) * (columns // 2)


def _flux(config: Any, recipe: Recipe, dtype: torch.dtype) -> dict[str, Any]:
    batch, words, tokens = recipe.micro_batch_size, recipe.sequence_length, _packed(recipe)
    made = {
        "hidden_states": empty(batch, tokens, config.in_channels, dtype=dtype),
        "encoder_hidden_states": empty(batch, words, config.joint_attention_dim, dtype=dtype),
        "pooled_projections": empty(batch, config.pooled_projection_dim, dtype=dtype),
        "timestep": empty(batch, dtype=dtype),
        "img_ids": empty(tokens, 3, dtype=dtype),
        "txt_ids": empty(words, 3, dtype=dtype),
    }
    return made | ({"guidance": empty(batch, dtype=dtype)} if config.guidance_embeds else {})


def _sd3(config: Any, recipe: Recipe, dtype: torch.dtype) -> dict[str, Any]:
    batch = recipe.micro_batch_size
    return {
        "hidden_states": empty(batch, config.in_channels, *_grid(recipe), dtype=dtype),
        "encoder_hidden_states": empty(batch, recipe.sequence_length, config.joint_attention_dim, dtype=dtype),
        "pooled_projections": empty(batch, config.pooled_projection_dim, dtype=dtype),
        "timestep": empty(batch, dtype=torch.float32),
    }


def _qwen(config: Any, recipe: Recipe, dtype: torch.dtype) -> dict[str, Any]:
    batch, (rows, columns) = recipe.micro_batch_size, _grid(recipe)
    return {
        "hidden_states": empty(batch, _packed(recipe), config.in_channels, dtype=dtype),
        "encoder_hidden_states": empty(batch, recipe.sequence_length, config.joint_attention_dim, dtype=dtype),
        "timestep": empty(batch, dtype=dtype),
        "img_shapes": [[(1, rows // 2, columns // 2)]] * batch,
    }


def _wan(config: Any, recipe: Recipe, dtype: torch.dtype) -> dict[str, Any]:
    batch, frames = recipe.micro_batch_size, (recipe.video_frames or _FRAMES) // 4 + 1
    return {
        "hidden_states": empty(batch, config.in_channels, frames, *_grid(recipe), dtype=dtype),
        "encoder_hidden_states": empty(batch, recipe.sequence_length, config.text_dim, dtype=dtype),
        "timestep": empty(batch, dtype=torch.int64),
    }


KNOWN: Final[dict[str, tuple[Inputs, tuple[str, ...]]]] = {
    "FluxTransformer2DModel": (_flux, _JOINT),
    "SD3Transformer2DModel": (_sd3, _JOINT),
    "QwenImageTransformer2DModel": (_qwen, _PLAIN),
    "WanTransformer3DModel": (_wan, _PLAIN),
}


class Diffusion(Foreign):
    """A transformer by its config.json.

    Raises:
        UnsupportedArchitecture: a class whose inputs are not known here.
        InvalidInput: more blocks than are traced.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        name = str(config[CLASS])
        if name not in KNOWN:
            raise UnsupportedArchitecture(
                f"{name:.60} of diffusers is not known here; known: {', '.join(KNOWN)}",
                field=f"config.{CLASS}",
                hint="a file of your own can build it: loralens trace FILE.py:build --plan …",
            )
        blocks = [value for key, value in config.items() if key.endswith("layers") and isinstance(value, int)]
        if max(blocks, default=0) > MAX_BLOCKS:
            raise InvalidInput(f"{max(blocks):,} blocks are too many to trace; at most {MAX_BLOCKS}", field="config")
        self._name, self._config = name, config
        self._inputs, self.targets = KNOWN[name]
        self._built: Any = None

    def build(self) -> torch.nn.Module:
        """As its class does from the config."""
        with needing("diffusion", "tracing a diffusion transformer"):
            cls = getattr(importlib.import_module("diffusers"), self._name)
        self._built = cls.from_config(dict(self._config)).config
        return cls.from_config(dict(self._config))

    def batch(self, recipe: Recipe, dtype: torch.dtype) -> dict[str, Any]:
        """Noisy latents and the prompt's states, with the velocity that is to be predicted."""
        made = self._inputs(self._built, recipe, dtype)
        made["target"] = torch.empty_like(made["hidden_states"])
        return made

    def loss(self, model: Any, batch: dict[str, Any]) -> torch.Tensor:
        """The mean over samples of the weighted squared error, in float32."""
        target = batch["target"]
        predicted = model(**{name: value for name, value in batch.items() if name != "target"}, return_dict=False)[0]
        weights = torch.ones_like(target[:, :1].float())
        error = weights * (predicted.float() - target.float()) ** 2
        return torch.mean(error.reshape(target.shape[0], -1), 1).mean()
