"""Linear layers that stay as they are when a base is packed.

Source: transformers 5.23 quantizers/base.py (`get_modules_to_not_convert`: names that are given take the place of the default,
which is the head), quantizers/quantizers_utils.py (`should_convert_module`: a name's beginning up to a dot, or its end).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from loralens.core.architecture.module import Linear
from loralens.core.errors import InvalidInput
from loralens.core.question.needs import FOUR_BITS

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.question.quantization import Quantization

FIELD = "quantization.skip_modules"


def skipped_layers(root: Root, quantization: Quantization) -> set[int]:
    """Identities of the layers: the head, or those whose names `skip_modules` gives.

    Raises:
        InvalidInput: no plain name, a name for some layers of a kind, or a head that shares its weight is left out.
    """
    if root.framework == "litgpt":  # Fabric's plugin replaces every linear layer
        return set()
    keys = asked_for(quantization)
    linears = [(name, module) for name, module in root.walk() if isinstance(module, Linear)]
    head = {id(module) for _, module in linears if root.is_head(module)}
    if keys is None:
        return head
    if not all(re.fullmatch(r"[\w.]+", key) for key in keys):
        raise InvalidInput(
            "skip_modules takes names; the regular expressions that transformers reads are not modelled",
            field=FIELD,
            hint="try skip_modules=lm_head,down_proj",
        )
    skipped = {id(module) for name, module in linears if is_named(name, keys)}
    packed = {id(module) for name, module in linears if not is_named(name, keys)}
    if skipped & packed:
        raise InvalidInput(
            "skip_modules names some layers of a kind and not the others, which is not modelled",
            field=FIELD,
            hint="leave the layer's number out: down_proj, not layers.0.mlp.down_proj",
        )
    if root.tied and head & packed:
        raise InvalidInput(
            "the head shares its weight with the embedding, which is not packed",
            field=FIELD,
            hint=f"name it too: skip_modules={','.join(['lm_head', *keys])}",
        )
    return skipped


def asked_for(quantization: Quantization) -> tuple[str, ...] | None:
    """`skip_modules`, where bitsandbytes packs."""
    return quantization.skip_modules if quantization.type in (*FOUR_BITS, "int8") else None


def is_named(name: str, keys: tuple[str, ...]) -> bool:
    """Is a module's full name meant by one of these?"""
    return any(name == key or name.startswith(f"{key}.") or name.endswith(key) for key in keys)


def unmatched(root: Root, quantization: Quantization) -> list[str]:
    """Names that no linear layer has: transformers passes over them."""
    names = [name for name, module in root.walk() if isinstance(module, Linear)]
    keys = asked_for(quantization) or ()
    lost = [key for key in keys if not any(is_named(name, (key,)) for name in names)]
    return [f"without effect: skip_modules {', '.join(lost)} (no linear layer is called so)"] if lost else []
