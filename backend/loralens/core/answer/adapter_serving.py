"""How vLLM is told to serve an adapter, and which adapters it refuses.

Source: vllm-project/vllm 01230b4 vllm/config/lora.py (`MaxLoRARanks`); vllm/lora/peft_helper.py, `PEFTHelper.validate_legal`.
"""

from __future__ import annotations

import shlex
from typing import Final

from loralens.core.question.recipe import Recipe

VLLM_RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)
VLLM_DEFAULT_RANK: Final = 16


def vllm_line(model: str, recipe: Recipe, folder: str = "out") -> tuple[str | None, str | None]:
    """The command that serves the adapter; or None, and what stands against it."""
    lora, p = recipe.lora, recipe.parallelism
    against = next(
        (
            says
            for stands, says in (
                (lora.use_dora, "vLLM does not load DoRA: merge the adapter into its base first"),
                (lora.modules_to_save, "vLLM loads no modules_to_save: merge the adapter into its base first"),
                (lora.bias != "none", "vLLM loads no trained biases: merge the adapter into its base first"),
                (lora.rank > VLLM_RANKS[-1], f"vLLM serves ranks up to {VLLM_RANKS[-1]}, this has {lora.rank}"),
                (lora.rank_pattern or lora.alpha_pattern, "vLLM reads one rank and one alpha for all modules"),
            )
            if stands
        ),
        None,
    )
    if against is not None:
        return None, against
    rank = next(one for one in VLLM_RANKS if one >= lora.rank)
    words = ["vllm", "serve", shlex.quote(model), "--enable-lora", "--max-lora-rank", str(rank)]
    words += ["--lora-modules", shlex.quote(f"adapter={folder}")]
    words += ["--quantization", "bitsandbytes"] if recipe.quantization is not None and _bits(recipe) else []
    words += ["--tensor-parallel-size", str(p.gpus)] if p.gpus > 1 else []
    return " ".join(words), None


def _bits(recipe: Recipe) -> bool:
    """Is the base packed by bitsandbytes as it is loaded? Others lie packed in the checkpoint."""
    return recipe.quantization is not None and recipe.quantization.type in ("nf4", "fp4", "int8")
