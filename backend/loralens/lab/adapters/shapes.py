"""Layers of a large model without the model: real shapes, random weights, a real file to reload.

Switching costs bytes and calls, not meaning, so random weights in Llama-2-7B's shapes measure it honestly. A few
layers suffice; the result says how many were measured and nothing is extrapolated.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.adapter import assemble
from loralens.lab.adapters.config import config_from_mapping
from loralens.lab.adapters.files import write_adapter
from loralens.lab.adapters.hub import Hub
from loralens.lab.adapters.scratch import scratch_folder
from loralens.lab.factors import factor_names

WIDTH: Final = 4096
# Source: meta-llama/Llama-2-7b-hf config.json: hidden_size 4096, intermediate_size 11008, 32 layers.
_LLAMA: Final = {
    **{f"self_attn.{name}_proj": (4096, 4096) for name in "qkvo"},
    "mlp.gate_proj": (11008, 4096),
    "mlp.up_proj": (11008, 4096),
    "mlp.down_proj": (4096, 11008),
}
MAX_LAYERS: Final = 8


class ShapesBase:
    """A base with layers but no forward pass; it can be reloaded and switched, not asked."""

    positions = 0
    end_ids: frozenset[int] = frozenset()

    def __init__(self, path: Path, layers: int) -> None:
        self.name = f"Llama-2-7B shapes, {layers} of 32 layers"
        self._path, self._layers = path, layers
        self.module = _empty(layers)
        self.reload()

    def encode(self, text: str) -> list[int]:
        raise InvalidInput("this base has shapes only, it cannot be asked", field="prompt")

    def decode(self, ids: Sequence[int]) -> str:
        raise InvalidInput("this base has shapes only, it cannot be asked", field="prompt")

    def step(self, ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
        raise InvalidInput("this base has shapes only, it cannot be asked", field="prompt")

    def stored_bytes(self) -> int:
        return self._path.stat().st_size

    @torch.no_grad()
    def reload(self) -> None:
        """Read the file and copy its tensors into the model, as loading a checkpoint into a running server does."""
        state = load_file(self._path)
        for name, parameter in self.module.named_parameters():
            parameter.copy_(state[name.replace(".base_layer.", ".")])


@contextmanager
def shapes_hub(root: Path, layers: int, *, rank: int = 8, adapters: int = 6) -> Iterator[Hub]:
    """A hub over `layers` bf16 layers with random adapters on q_proj and v_proj; its files are removed at the end."""
    if not 1 <= layers <= MAX_LAYERS:
        raise InvalidInput(f"layers must be from 1 to {MAX_LAYERS}, got {layers}", field="layers")
    root.mkdir(parents=True, exist_ok=True)
    _check_room(root, layers)
    generator = torch.Generator().manual_seed(0)
    with scratch_folder(root, "shapes") as folder:
        state = {
            f"model.layers.{layer}.{module}.weight": (torch.randn(shape, generator=generator) * 0.02).bfloat16()
            for layer in range(layers)
            for module, shape in _LLAMA.items()
        }
        save_file(state, folder / "model.safetensors")
        del state
        hub = Hub(ShapesBase(folder / "model.safetensors", layers))
        targets = ("q_proj", "v_proj")
        config = config_from_mapping(
            {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": list(targets)}
        )
        for index in range(adapters):
            tensors = {}
            for layer in range(layers):
                for target in targets:
                    names = factor_names(f"model.layers.{layer}.self_attn.{target}")
                    for name, shape in zip(names, ((rank, WIDTH), (WIDTH, rank)), strict=True):
                        tensors[name] = (torch.randn(shape, generator=generator) * 0.01).bfloat16()
            write_adapter(assemble(config, tensors), folder / f"adapter-{index}")
            hub.load(f"adapter-{index}", folder / f"adapter-{index}")
        yield hub


def _check_room(root: Path, layers: int) -> None:
    """Refuse before anything is written what would fill the disk or the memory."""
    size = layers * sum(rows * columns * 2 for rows, columns in _LLAMA.values())
    memory, disk = psutil.virtual_memory().available, shutil.disk_usage(root).free
    # Once while the file is written, once in the model, and its pages while it is read back.
    if memory < 3 * size or disk < 2 * size:
        raise InvalidInput(
            f"{layers} layers need {3 * size} bytes of memory and {2 * size} of disk; free are {memory} and {disk}",
            field="layers",
            hint="measure fewer layers",
        )


def _empty(layers: int) -> nn.Module:
    tree = nn.Module()
    tree.model = nn.Module()
    tree.model.layers = nn.ModuleList()
    for _ in range(layers):
        layer = nn.Module()
        layer.self_attn, layer.mlp = nn.Module(), nn.Module()
        for module, (rows, columns) in _LLAMA.items():
            part, _, name = module.partition(".")
            linear = nn.Linear(columns, rows, bias=False, dtype=torch.bfloat16, device="meta").to_empty(device="cpu")
            setattr(getattr(layer, part), name, linear)
        tree.model.layers.append(layer)
    return tree.requires_grad_(False)
