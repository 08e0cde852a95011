"""Keys and values that a model keeps while it generates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.architecture.registry import build
from loralens.core.errors import UnsupportedArchitecture

if TYPE_CHECKING:
    from loralens.core.question.model import Model


def kv_cache_bytes(
    layers: int,
    kv_heads: int,
    head_dim: int,
    batch: int,
    sequence_length: int,
    item_bytes: int,
    window: int | None = None,
) -> int:
    """Keys and values of `layers` layers for a batch; a layer with a sliding window keeps at most the window.

    Source: transformers `DynamicCache` / `SlidingWindowLayer`: two tensors (batch, kv_heads, length, head_dim) a layer.

    >>> kv_cache_bytes(32, 32, 128, batch=1, sequence_length=4096, item_bytes=2)  # Llama-2-7B: 2 GiB
    2147483648
    """
    length = sequence_length if window is None else min(sequence_length, window)
    return 2 * layers * batch * kv_heads * length * head_dim * item_bytes


def queries_per_key(model: Model) -> float:
    """Query heads that share a key head; 1 where that is not known."""
    shape = getattr(build(model.config), "s", None)
    heads, keys = getattr(shape, "heads", 1), getattr(shape, "kv_heads", 1)
    return heads / keys


def cache_of(model: Model, batch: int, length: int, item_bytes: int) -> tuple[int, int, int]:
    """(bytes of the cache, bytes per further token of one sequence without windows, vocabulary)."""
    root = build(model.config)
    shape = getattr(root, "s", None)
    config = model.config.get("text_config", model.config)
    if shape is None or not hasattr(shape, "kv_heads") or "kv_lora_rank" in config or "d_kv" in config:
        raise UnsupportedArchitecture(
            f"{model.name} keeps something other than a plain key/value cache per layer",
            field="model",
            hint="compressed caches (MLA) and encoder-decoders are not modelled here",
        )
    windows = getattr(shape, "windows", (None,) * shape.layers)
    total = sum(
        kv_cache_bytes(1, shape.kv_heads, shape.head_dim, batch, length, item_bytes, window) for window in windows
    )
    return total, kv_cache_bytes(shape.layers, shape.kv_heads, shape.head_dim, 1, 1, item_bytes), root.vocabulary
