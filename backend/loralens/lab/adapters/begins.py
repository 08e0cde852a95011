"""How factors began, where that changed the base: such an adapter belongs to no base that anybody can download.

PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA take the first factors out of the base's weight, or quantize it: what is trained
against is the rest. PEFT makes that rest again each time it loads such an adapter, from the base, rank and scaling that
its config names. So the factors mean nothing without that config, and none of those three can be changed alone.
Source: peft 0.21, tuners/lora/layer.py (pissa_init, olora_init, corda_init, loftq_init, lora_ga_init).
"""

from __future__ import annotations

import re
from typing import Final

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.config import AdapterConfig

_CHANGES: Final = re.compile(r"(?i)(?P<name>pissa|olora|corda|loftq|lora_ga)(?:_niter_[0-9]+)?")
_NAMES: Final = {"pissa": "PiSSA", "olora": "OLoRA", "corda": "CorDA", "loftq": "LoftQ", "lora_ga": "LoRA-GA"}

NO_PLAIN_FORM: Final = "its base is quantized besides, and what that changed is an update of full rank; PEFT has no conversion for it either"
"""Why LoftQ is no LoRA of the published base."""
# Source: peft 0.21, PeftModel.save_pretrained: it converts all of these but LoftQ.
_CONVERT: Final = (
    "make it plain LoRA first: loralens adapter plain FOLDER OUTPUT with --base FOLDER (PiSSA, OLoRA) or --initial "
    "FOLDER_OF_THE_UNTRAINED_ADAPTER; PEFT's own way is model.save_pretrained(folder, path_initial_model_for_weight_conversion=…)"
)
_KEEP: Final = "LoftQ has no plain form: keep the adapter as it is, with its base"


def way_out(name: str) -> str:
    """What to do with factors that began as `name`."""
    return _KEEP if name == "LoftQ" else _CONVERT


def changed_base(config: AdapterConfig) -> str | None:
    """The name of the beginning that changed the base under these factors, None where the base is as published."""
    found = _CHANGES.fullmatch(config.init) if isinstance(config.init, str) else None
    return None if found is None else _NAMES[found["name"].lower()]


def needs_its_base(config: AdapterConfig, what: str) -> None:
    """Refuse what would part such factors from their base. Raises: `InvalidInput`."""
    name = changed_base(config)
    if name is not None:
        raise InvalidInput(
            f"this adapter began as {name} ({config.init}), which changed its base: {what}",
            field="adapter_config.init_lora_weights",
            hint=way_out(name),
        )
