"""The recipe's words for an adapter, in PEFT's meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from loralens.core.question.indices import LAYERS, TOKENS
from loralens.core.question.kinds import Choice, Maybe, Number, Truth, Whole
from loralens.core.question.names import Names, Ranks
from loralens.core.question.needs import ADAPTER, NO_MEMORY, OWN_DTYPE
from loralens.core.question.precision import DTYPES
from loralens.core.question.words import read_group, word


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA adapter's configuration in PEFT's meaning (`rank` is PEFT's `r`, `alpha` its `lora_alpha`)."""

    rank: int = word(
        8,
        Whole(1, 65_536),
        "Inner dimension of the LoRA update B·A.",
        common=True,
        aliases=("lora_r", "lora_rank"),
        needs=(ADAPTER,),
    )
    alpha: float = word(
        16,
        Number(0, 1e9),
        "Numerator of the LoRA scaling alpha / rank; twice the rank unless given.",
        aliases=("lora_alpha",),
        needs=(ADAPTER, NO_MEMORY),
    )
    dropout: float = word(
        0.0,
        Number(0, 0.999),
        "LoRA dropout.",
        aliases=("lora_dropout",),
        needs=(ADAPTER,),
    )
    target_modules: tuple[str, ...] | str | None = word(
        None,
        Maybe(Names(pattern_allowed=True)),
        "Layers with an adapter: names with commas, a regular expression, or all-linear; none: the family's usual ones.",
        common=True,
        aliases=("lora_target_modules",),
        needs=(ADAPTER,),
    )
    adapter_dtype: str = word(
        "float32",
        Choice(DTYPES),
        "Data type of the adapter weights.",
        needs=(ADAPTER, OWN_DTYPE),
    )
    use_dora: bool = word(
        False,
        Truth(),
        "DoRA: also learn a magnitude per output feature.",
        needs=(ADAPTER,),
    )
    use_rslora: bool = word(
        False,
        Truth(),
        "Scale by alpha / sqrt(rank).",
        needs=(ADAPTER, NO_MEMORY),
    )
    bias: str = word(
        "none",
        Choice(("none", "all", "lora_only")),
        "Which biases are trained.",
        needs=(ADAPTER,),
    )
    modules_to_save: tuple[str, ...] = word(
        (),
        Names(),
        "Modules trained in full in addition to the adapter, with commas.",
        needs=(ADAPTER,),
    )
    rank_pattern: tuple[tuple[str, int], ...] = word(
        (),
        Ranks(),
        "Separate ranks for some modules, by name or regular expression.",
        needs=(ADAPTER,),
    )

    target_parameters: tuple[str, ...] = word(
        (),
        Names(),
        "Parameters with an adapter of their own, by name, as stacked experts are; with them target_modules may be none.",
        needs=(ADAPTER,),
    )
    exclude_modules: tuple[str, ...] | str | None = word(
        None,
        Maybe(Names(pattern_allowed=True)),
        "Layers without an adapter although target_modules means them: names with commas, or a regular expression.",
        needs=(ADAPTER,),
    )
    layers_to_transform: tuple[int, ...] | None = word(
        None,
        Maybe(LAYERS),
        "Numbers of the layers that get adapters, with commas; none: all. target_modules is a list then.",
        needs=(ADAPTER,),
    )
    trainable_token_indices: tuple[int, ...] | None = word(
        None,
        Maybe(TOKENS),
        "Numbers of tokens whose rows in the embedding train, with commas; a head that is tied to it has them too.",
        needs=(ADAPTER,),
    )
    lora_bias: bool = word(
        False,
        Truth(),
        "A bias on the factor B of each adapter.",
        needs=(ADAPTER,),
    )
    alpha_pattern: tuple[tuple[str, int], ...] = word(
        (),
        Ranks(),
        "Alphas of their own for some modules, by name or regular expression.",
        needs=(ADAPTER, NO_MEMORY),
    )
    freeze_a: bool = word(
        False,
        Truth(),
        "LoRA-FA: factor A keeps its first values and only B is trained.",
        needs=(ADAPTER,),
    )

    @staticmethod
    def from_mapping(given: Any) -> Lora:
        """Read the `lora` object; raises `InvalidInput` naming `lora.<field>`."""
        values = read_group(Lora, "lora", given)
        return Lora(**{"alpha": 2 * values.get("rank", 8), **values})
