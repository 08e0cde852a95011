"""Names of modules of diffusion models: kohya writes underscores for dots, and only the known words tell which were dots.

Source: huggingface/diffusers models/unets/unet_2d_condition.py and unet_2d_blocks.py, models/attention.py, resnet.py;
huggingface/transformers models/clip/modeling_clip.py: names of attributes. kohya-ss/sd-scripts networks/lora.py:
LORA_PREFIX_UNET, LORA_PREFIX_TEXT_ENCODER, …1 and …2 (SDXL), and `lora_name.replace(".", "_")`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from loralens.core.errors import InvalidInput

_COMPONENTS: Final = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
}
_WORDS: Final = frozenset({
    "down_blocks", "up_blocks", "mid_block", "attentions", "resnets", "transformer_blocks", "attn1", "attn2", "to_q",
    "to_k", "to_v", "to_out", "ff", "net", "proj", "proj_in", "proj_out", "conv", "conv1", "conv2", "conv_shortcut",
    "time_emb_proj", "downsamplers", "upsamplers", "time_embedding", "add_embedding", "linear_1", "linear_2", "conv_in",
    "conv_out", "text_model", "encoder", "layers", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj", "mlp", "fc1",
    "fc2", "text_projection",
})  # fmt: skip


def from_kohya(flat: str) -> str:
    """A module's name with dots, its component first.

    Raises: `InvalidInput` for a name with words that are not known, or of another model than Stable Diffusion's.

    >>> from_kohya("lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_out_0")
    'unet.down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0'
    """
    prefix = next((one for one in _COMPONENTS if flat.startswith(one)), None)
    found = None if prefix is None else _dotted(flat.removeprefix(prefix))
    if prefix is None or found is None:
        raise InvalidInput(
            f"{flat[:120]}: where its dots were is not known",
            field="folder", hint="names of Stable Diffusion's U-Net and text encoders are read",
        )  # fmt: skip
    return f"{_COMPONENTS[prefix]}.{found}"


def to_kohya(module: str, *, two_encoders: bool = False) -> str:
    """kohya's name of a module whose name begins with its component.

    Raises: `InvalidInput` for a name that could not be read back.

    >>> to_kohya("text_encoder.text_model.encoder.layers.0.mlp.fc1")
    'lora_te_text_model_encoder_layers_0_mlp_fc1'
    """
    component, _, rest = module.partition(".")
    prefix = {"unet": "lora_unet_", "text_encoder": "lora_te1_" if two_encoders else "lora_te_",
              "text_encoder_2": "lora_te2_"}.get(component)  # fmt: skip
    flat = None if prefix is None else prefix + rest.replace(".", "_")
    if flat is None or _dotted(rest.replace(".", "_")) != rest:
        raise InvalidInput(f"{module[:120]} has no name in kohya's format that could be read back", field="folder",
                           hint="modules of Stable Diffusion's unet, text_encoder and text_encoder_2 are written")  # fmt: skip
    return flat


@lru_cache(maxsize=4096)
def _dotted(flat: str) -> str | None:
    """The one way to read the words, longest first; None where there is none."""
    parts = flat.split("_")
    words: list[str] = []
    place = 0
    while place < len(parts):
        for end in range(len(parts), place, -1):
            word = "_".join(parts[place:end])
            if word in _WORDS or re.fullmatch(r"\d{1,3}", word):
                words.append(word)
                place = end
                break
        else:
            return None
    return ".".join(words)
