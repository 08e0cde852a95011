"""The words of a packed base model: how the frozen weights are quantized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from loralens.core.errors import InvalidInput
from loralens.core.question.kinds import Choice, Maybe, Truth, Whole
from loralens.core.question.names import Names
from loralens.core.question.needs import BITSANDBYTES, FOUR_BIT_PACKING, FROZEN_BASE, GPTQ, NAMED, RAISED, WHOLE_BASE
from loralens.core.question.packings import QUANTIZATIONS, PackingName
from loralens.core.question.precision import DTYPES
from loralens.core.question.words import read_group, word


@dataclass(frozen=True, slots=True)
class Quantization:
    """How the frozen base weights are packed (bitsandbytes' and GPTQ's words)."""

    type: str = word(
        "nf4",
        PackingName(QUANTIZATIONS),
        "How the frozen base is quantized.",
        name="quantization",
        common=True,
        aliases=("quant",),
        needs=(FROZEN_BASE,),
    )
    double_quant: bool = word(
        True,
        Truth(),
        "Quantize the quantization constants too.",
        needs=(FROZEN_BASE, NAMED, FOUR_BIT_PACKING),
    )
    compute_dtype: str = word(
        "bfloat16",
        Choice(DTYPES),
        "Data type into which quantized weights are dequantized.",
        needs=(FROZEN_BASE, NAMED, FOUR_BIT_PACKING),
    )
    prepare_kbit: bool = word(
        True,
        Truth(),
        "Prepare as PEFT's prepare_model_for_kbit_training does.",
        needs=(FROZEN_BASE, NAMED, WHOLE_BASE, RAISED),
    )
    pack_experts: bool = word(
        False,
        Truth(),
        "Pack the stacked experts of a mixture too, as Unsloth and Axolotl's quantize_moe_experts do.",
        needs=(FROZEN_BASE, NAMED, FOUR_BIT_PACKING),
    )
    group_size: int = word(
        128,
        Whole(-1, 65_536),
        "Weights per scale (GPTQ, AWQ, HQQ); -1: one scale per row.",
        needs=(FROZEN_BASE, NAMED, GPTQ),
    )
    skip_modules: tuple[str, ...] | None = word(
        None,
        Maybe(Names()),
        "Linear layers that bitsandbytes leaves as they are, names with commas; none: the head.",
        aliases=("llm_int8_skip_modules",),
        needs=(FROZEN_BASE, NAMED, BITSANDBYTES),
    )

    @staticmethod
    def from_mapping(given: Any) -> Quantization:
        """Read the `quantization` object (or just its type); raises `InvalidInput`."""
        values = read_group(Quantization, "quantization", {"type": given} if isinstance(given, str) else given)
        if values.get("group_size") == 0:
            raise InvalidInput(
                "quantization.group_size must be -1 or a whole number from 1 to 65536, got 0",
                field="quantization.group_size",
                hint="try group_size=128, or -1 for one scale per row",
            )
        return Quantization(**values)
