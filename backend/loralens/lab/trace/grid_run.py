"""Generated cases of the run around the model: its output kept, its cache on, an older card, parts of it that train."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from loralens.core.jsontext import JsonObject
from loralens.lab.trace.grid_cases import small_config

_EVERY: Final = ""  # every case
_FAMILIES: Final = (
    ("llama-3.2-1b", 6, "q_proj,v_proj", _EVERY), ("qwen2.5-0.5b", 6, "all-linear", _EVERY),
    ("gemma-2-9b", 2, "q_proj,v_proj", "lora-cached"), ("gpt2", 2, "c_attn", "lora-cached"),
    ("falcon-7b", 2, "query_key_value", "lora-cached"), ("bert-base-uncased", 2, "query,value", "kept-lora"),
    ("vit-large-patch16-224", 2, "query,value", "kept-full"),
)  # fmt: skip


def _kept(targets: str) -> dict[str, tuple[str, JsonObject]]:
    lora = {"rank": 8, "target_modules": targets if targets == "all-linear" else targets.split(",")}
    shape = {"micro_batch_size": 2, "sequence_length": 512, "keep_outputs": True}
    return {
        "kept-full": ("full", {**shape, "autocast": None}),
        "kept-lora": ("lora", {**shape, "lora": lora}),
        "kept-lora-checkpointing": ("lora", {**shape, "gradient_checkpointing": True, "lora": lora}),
        "kept-lora-cached": ("lora", {**shape, "use_cache": True, "lora": lora}),
        "cached-padded": ("lora", {**shape, "keep_outputs": False, "use_cache": True, "padded": True, "lora": lora}),
        "kept-qlora-cached": ("qlora", {**shape, "use_cache": True, "autocast": None, "lora": lora}),
        "kept-accumulating": ("full", {**shape, "weights_dtype": "float32", "use_cache": True, "gradient_accumulation_steps": 2}),
    }  # fmt: skip


# a small vocabulary, so that the peak is attention's and not the loss's
_OLDER: Final = (
    ("llama-3.2-1b", 3, "q_proj,v_proj"),
    ("qwen2.5-0.5b", 3, "all-linear"),
    ("llama-2-7b", 2, "q_proj,v_proj"),
)
_HALF: Final[JsonObject] = {"autocast": "float16", "weights_dtype": "float16"}


def _on_older_cards() -> Iterator[tuple[str, JsonObject]]:
    """Below compute capability 8.0: math with grouped keys or bfloat16, the memory-efficient kernel else."""
    words: dict[str, JsonObject] = {
        "bf16": {}, "fp16": _HALF, "fp16-padded": {**_HALF, "padded": True}, "bf16-padded": {"padded": True},
        "fp16-one": {**_HALF, "micro_batch_size": 1}, "bf16-checkpointing": {"gradient_checkpointing": True},
    }  # fmt: skip
    for name, layers, targets in _OLDER:
        config = {**small_config(name, layers), "vocab_size": 2000}
        lora = {"rank": 8, "target_modules": targets if targets == "all-linear" else targets.split(",")}
        shape = {"micro_batch_size": 2, "sequence_length": 512, "accelerator": "cuda-before-8", "lora": lora}
        for word, recipe in words.items():
            yield (
                f"{name}/before-8-{word}",
                {"config": config, "method": "lora", "recipe": {"gradient_checkpointing": False, **shape, **recipe}},
            )


_EXPERTS: Final = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
_ROWS: Final = [5, 7, 9, 11, 100]


def _parts() -> Iterator[tuple[str, JsonObject]]:
    """Adapters on parameters themselves, and rows of the embedding that train, with a tied head and without."""
    shape = {"micro_batch_size": 2, "sequence_length": 256}
    adapters: dict[str, JsonObject] = {
        "experts": {"target_parameters": _EXPERTS},
        "experts-and-query": {"target_parameters": _EXPERTS[1:], "target_modules": ["q_proj"]},
        "experts-of-one-layer": {"target_parameters": ["layers.1." + _EXPERTS[0]], "target_modules": ["v_proj"]},
    }
    for name, forms in (("qwen3-30b-a3b", (False, True)), ("gpt-oss-20b", (False,))):
        for word, lora in adapters.items():
            for checkpointing in forms:
                recipe = {**shape, "gradient_checkpointing": checkpointing, "lora": {"rank": 8, **lora}}
                own = f"{name}/{word}{'-checkpointing' if checkpointing else ''}"
                yield own, {"config": small_config(name, 2), "method": "lora", "recipe": recipe}
    words: dict[str, tuple[str, JsonObject]] = {
        "rows": ("lora", {}), "rows-qlora": ("qlora", {"gradient_checkpointing": True}),
        "rows-accumulating": ("lora", {"autocast": None, "gradient_accumulation_steps": 2}),
    }  # fmt: skip
    for name in ("llama-3.2-1b", "qwen2.5-7b", "gemma-2-9b", "opt-6.7b"):
        for word, (method, own_words) in words.items():
            lora = {"rank": 8, "target_modules": ["q_proj"], "trainable_token_indices": _ROWS}
            recipe = {"gradient_checkpointing": False, **shape, "lora": lora, **own_words}
            yield f"{name}/{word}", {"config": small_config(name, 2), "method": method, "recipe": recipe}


_TABLES: Final = {
    "llama-3.2-1b": ["q_proj", "embed_tokens"], "gemma-2-9b": ["q_proj", "embed_tokens"], "opt-6.7b": ["q_proj", "embed_tokens"],
    "gpt2": ["c_attn", "wte"], "falcon-7b": ["query_key_value", "word_embeddings"], "bloom-560m": ["word_embeddings"],
}  # fmt: skip


def _tables() -> Iterator[tuple[str, JsonObject]]:
    """An adapter on the embedding, with a frozen table beneath that passes a gradient under checkpointing."""
    words: dict[str, tuple[str, JsonObject]] = {
        "adapted-embedding": ("lora", {}), "adapted-embedding-checkpointing": ("lora", {"gradient_checkpointing": True}),
        "adapted-embedding-qlora": ("qlora", {"gradient_checkpointing": True}),
        "adapted-embedding-accumulating": ("lora", {"autocast": None, "gradient_accumulation_steps": 2}),
    }  # fmt: skip
    for name, targets in _TABLES.items():
        for word, (method, own_words) in words.items():
            shape = {"micro_batch_size": 2, "sequence_length": 256, "gradient_checkpointing": False}
            recipe = {**shape, "lora": {"rank": 8, "target_modules": targets}, **own_words}
            yield f"{name}/{word}", {"config": small_config(name, 2), "method": method, "recipe": recipe}


def cases() -> Iterator[tuple[str, JsonObject]]:
    """Name and request (config, method, recipe) of every case."""
    for name, layers, targets, only in _FAMILIES:
        config = small_config(name, layers)
        for word, (method, recipe) in _kept(targets).items():
            if only == _EVERY or word.endswith(only):
                yield (
                    f"{name}/{word}",
                    {"config": config, "method": method, "recipe": {"gradient_checkpointing": False, **recipe}},
                )
    yield from _on_older_cards()
    yield from _parts()
    yield from _tables()
