"""Many steps on one device, sized to it, as rows for `loralens validate`; a run that stopped goes on where it was."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from loralens.core.answer.estimate import estimate_model
from loralens.core.errors import InvalidInput, LoraLensError
from loralens.core.question.model import named
from loralens.core.question.recipe import Recipe
from loralens.lab.measure.run import CPU_LIMIT, measure, pick_device

MODELS: Final = (
    "smollm2-135m", "qwen2.5-0.5b", "qwen3-0.6b", "llama-3.2-1b", "gemma-3-1b", "gpt2-medium", "pythia-1.4b",
    "llama-3.2-3b", "phi-2", "mistral-7b-v0.3", "llama-3.1-8b", "qwen3-14b",
)  # fmt: skip
SWITCHES: Final[tuple[dict[str, Any], ...]] = (
    {"gradient_checkpointing": False},
    {},
    {"gradient_checkpointing": False, "autocast": None, "lora": {"adapter_dtype": "bfloat16"}},
    {"gradient_checkpointing": False, "padded": True, "micro_batch_size": 4, "sequence_length": 512},
    {"gradient_checkpointing": False, "attention": "eager", "sequence_length": 512},
    {"optimizer": "adamw_foreach", "micro_batch_size": 4},
)
METHODS: Final = ("full", "lora", "qlora", "dora")
SHARE_OF_DEVICE: Final = 0.8  # assumption: what is left is for the context and fragmentation


def cases() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Model, method and recipe of every case, small models first."""
    for model, (number, switches), method in itertools.product(MODELS, enumerate(SWITCHES), METHODS):
        targets = {"lora": {"target_modules": "all-linear", **switches.get("lora", {})}} if number % 2 else {}
        yield model, method, {**switches, **targets}


def device_bytes(device: str | None) -> int:
    """Memory that a case may use."""
    import torch

    chosen = pick_device(device)
    if chosen.type == "cpu":
        return CPU_LIMIT
    return int(torch.cuda.mem_get_info(chosen)[0] * SHARE_OF_DEVICE)


def run(path: Path, *, device: str | None = None, seconds: float = 480) -> Iterator[dict[str, Any]]:
    """Measure cases that fit until the time is spent; yields each row as it is written to `path`.

    Raises:
        InvalidInput: the file holds something that is not a row.
        DeviceUnavailable: the device is not in this machine.
    """
    limit = device_bytes(device)
    done = set(_ids(path))
    begun = time.monotonic()
    for name, method, words in cases():
        recipe = Recipe.from_mapping(words)
        row_id = f"{name}-{method}-{json.dumps(words, sort_keys=True)}"
        if row_id in done:
            continue
        if time.monotonic() - begun > seconds:
            yield {"id": row_id, "skipped": f"the {seconds:.0f} s are spent; call again to go on"}
            return
        try:
            if estimate_model(named(name), method, recipe).overhead.needed[0] > limit:
                yield {"id": row_id, "skipped": "computed to be larger than the device"}
                continue
            row = measure(named(name), method, recipe, device).row | {"id": row_id}
        except LoraLensError as error:
            yield {"id": row_id, "skipped": error.message}
            continue
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        yield row


def _ids(path: Path) -> list[str]:
    if not path.exists():
        return []
    try:
        return [str(json.loads(line)["id"]) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"{path} holds something that is not a row: {error}", field="grid", hint="name another file"
        ) from error
