"""Model types that transformers 5.23 has no class for, or none with a loss: what is known of them, and why no number is exact.

Source: the configuration and modelling code that each one's repository on the Hub names in `auto_map`; transformers 5.23,
models/diffusion_gemma/modeling_diffusion_gemma.py. Nothing of that code is run, and no step of it is traced.
"""

from __future__ import annotations

from typing import Final

# the same code under another name: model type -> walked type (config.json of moonshotai/Kimi-K2-Instruct: `DeepseekV3ForCausalLM`)
SAME: Final = {"bailing_moe_v2": "bailing_moe", "kimi_k2": "deepseek_v3"}

# what differs from a Llama; those with fields of their own are refused, the others counted as about as many
ON_THE_HUB: Final = {
    "aquila": "a Llama by another name",
    "baichuan": "query, key and value in one matrix; the 13B and larger ones have ALiBi",
    "deepseek_vl_v2": "DeepSeek-VL2: a SigLIP tower before DeepSeek-V2's experts",
    "internlm": "a Llama with biases on attention",
    "llada": "a masked diffusion model: every token sees every other, and the loss is of masked tokens",
    "llada2_moe": "a masked diffusion model with experts",
    "minicpmo": "MiniCPM-o: as MiniCPM-V, with Whisper's encoder for sound and a voice beside it",
    "minicpmv": "MiniCPM-V before 4.6: a SigLIP tower and a resampler before Llama's or Qwen's layers",
    "nemotron-nas": "layers of different widths, some without attention or MLP",
    "phi3_v": "Phi-3-vision: CLIP's tower before Phi-3's layers, which have query, key and value in one matrix",
    "phi3small": "block-sparse attention in every other layer, biases, a gated GELU",
    "telechat": "key and value in one matrix",
    "telechat2": "key and value in one matrix",
    "telechat3": "key and value in one matrix",
    "xverse": "a Llama by another name",
    "yuan": "a convolution over neighbouring tokens before attention",
}
# transformers has the model and no training loss for it
NO_LOSS: Final = {
    "diffusion_gemma": "block diffusion: an encoder reads the prompt, a decoder refines a canvas of tokens that sees both, and "
    "transformers computes no loss; what a trainer masks, and how long the canvas is, decides the step",
}


def reason(model_type: str) -> str:
    """Why this type's numbers are not exact, or are refused; empty where nothing is known of it."""
    if model_type in NO_LOSS:
        return NO_LOSS[model_type]
    said = ON_THE_HUB.get(model_type)
    return f"its code lives on the Hub, not in transformers ({said})" if said else ""
