"""What the replay asks: every traced step, every catalogue model by every method, and a spread of recipes.

A case is `{"name", "ask", "body"}`; `ask` is the answer's name (`memory`, `plan`, `parameters`, `fit`, `sweep`, `serving`).
Published runs are no cases: each revision judges them with its own reading (`answers.published`).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

Case = dict[str, Any]

ORACLES: Final = Path(__file__).parents[1] / "oracles"
METHODS: Final = ("full", "lora", "qlora", "dora")
# Short enough for every catalogue model's learned positions; stated, so that a change of defaults is not a difference.
PLAIN: Final = {"micro_batch_size": 2, "sequence_length": 256, "gradient_checkpointing": False}
CHECKPOINTED: Final = {**PLAIN, "gradient_checkpointing": True}

DENSE, CONV, MOE, ENCODER_DECODER = "llama-3.2-1b", "gpt2", "olmoe-1b-7b", "t5-base"
OPTIMIZERS: Final = (
    "adamw_fused", "adamw_foreach", "adamw_loop", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit", "adamw_4bit",
    "adamw_anyprecision", "sgd", "sgd_momentum", "adafactor", "lion", "lion_8bit", "muon",
)  # fmt: skip
SHARED: Final = (
    ("ddp", "none"), ("zero1", "none"), ("zero1", "optimizer"), ("zero2", "none"), ("zero2", "optimizer"),
    ("zero3", "none"), ("zero3", "optimizer"), ("zero3", "parameters"), ("fsdp", "none"), ("fsdp", "parameters"),
)  # fmt: skip
# Words beside PLAIN, by the name of the case; `methods` of DENSE that are asked.
WORDS: Final[Mapping[str, tuple[tuple[str, ...], Mapping[str, Any]]]] = {
    "accumulation": (("full", "lora", "qlora"), {"gradient_accumulation_steps": 4}),
    "padded": (("full", "lora", "qlora"), {"padded": True}),
    "clipped": (("full", "lora"), {"max_grad_norm": 1.0}),
    "step-in-backward": (("full",), {"optimizer_in_backward": True}),
    "eager": (("full", "lora"), {"attention": "eager"}),
    "eager-padded": (("lora",), {"attention": "eager", "padded": True}),
    "flash": (("full", "lora"), {"attention": "flash"}),
    "no-autocast": (("full", "lora"), {"autocast": None}),
    "float16": (("lora",), {"weights_dtype": "float16", "autocast": "float16"}),
    "float32": (("full", "lora"), {"weights_dtype": "float32"}),
    "float32-alone": (("full",), {"weights_dtype": "float32", "autocast": None}),
    "compiled": (("full", "lora"), {"compile": True}),
    "fused-kernels": (("full", "lora"), {"fused_kernels": True}),
    "fused-lora": (("lora", "qlora"), {"fused_kernels": "+lora"}),
    "last-layers": (("full",), {"trainable_layers": 4}),
    "transformers-4.40": (("full", "lora"), {"stack": {"transformers": "4.40"}}),
    "litgpt": (("full", "lora"), {"stack": {"framework": "litgpt"}}),
    "torchtune": (("full", "lora"), {"stack": {"framework": "torchtune"}, "loss": "chunked"}),
    "rank-64": (("lora", "qlora"), {"lora": {"rank": 64}}),
    "all-linear": (("lora", "qlora", "dora"), {"lora": {"target_modules": "all-linear"}}),
    "dropout": (("lora", "dora"), {"lora": {"dropout": 0.1}}),
    "rslora": (("lora",), {"lora": {"use_rslora": True}}),
    "adapter-bfloat16": (("lora",), {"lora": {"adapter_dtype": "bfloat16"}}),
    "bias-all": (("lora",), {"lora": {"bias": "all"}}),
    "head-saved": (("lora",), {"lora": {"modules_to_save": ["lm_head"]}}),
    "rank-pattern": (("lora",), {"lora": {"rank_pattern": {"q_proj": 32}}}),
    "not-double": (("lora",), {"quantization": {"type": "nf4", "double_quant": False}}),
    "not-prepared": (("lora",), {"quantization": {"type": "nf4", "prepare_kbit": False}}),
    "gptq4-column": (("lora",), {"quantization": {"type": "gptq4", "group_size": -1}}),
    "checkpointed": (("full", "lora", "qlora", "dora"), {"gradient_checkpointing": True}),
    "checkpointed-padded": (("lora",), {"gradient_checkpointing": True, "padded": True}),
    "checkpointed-every-2": (("full", "lora"), {"gradient_checkpointing": True, "checkpoint_every": 2}),
    "reentrant": (("full", "lora"), {"gradient_checkpointing": True, "checkpoint_reentrant": True}),
    "not-reentrant": (("full", "lora"), {"gradient_checkpointing": True, "checkpoint_reentrant": False}),
    "inputs-on-host": (("full", "lora"), {"gradient_checkpointing": True, "checkpoint_offload": "cpu"}),
    "long": (("full", "lora", "qlora"), {"sequence_length": 4096, "gradient_checkpointing": True}),
}


def every_case(catalogue: list[str]) -> list[Case]:
    """All cases, in one order."""
    return [*_traced(), *_catalogue(catalogue), *_spread(), *_other()]


def is_quick(name: str) -> bool:
    """Whether the default test asks this case: all recipes, and one in 16 of the rest by its name."""
    return name.startswith(("recipe/", "sweep/", "serving/")) or zlib.crc32(name.encode()) % 16 == 0


def _traced() -> Iterator[Case]:
    steps = json.loads((ORACLES / "reference-steps.json").read_text(encoding="utf-8"))["cases"]
    for file in ("traced-grid", "traced-more", "traced-models", "traced-text", "traced-remote"):
        lines = (ORACLES / f"{file}.jsonl").read_text(encoding="utf-8").splitlines()
        steps += [json.loads(line) for line in lines]
    for step in steps:
        yield {"name": f"traced/{step['name']}", "ask": "memory", "body": step["request"]}


def _catalogue(models: list[str]) -> Iterator[Case]:
    for model in models:
        for method in METHODS:
            yield _memory(f"catalogue/{model}/{method}", model, method, {})
        yield {"name": f"plan/{model}", "ask": "plan", "body": {"model": model, "recipe": dict(PLAIN)}}
        yield {"name": f"parameters/{model}", "ask": "parameters", "body": {"model": model, "method": "lora"}}


def _spread() -> Iterator[Case]:
    for name, (methods, words) in WORDS.items():
        for method in methods:
            yield _memory(f"recipe/{name}/{method}", DENSE, method, words)
    for model in (DENSE, CONV):
        for optimizer in OPTIMIZERS:
            for method in ("full", "lora"):
                yield _memory(f"recipe/{optimizer}/{model}/{method}", model, method, {"optimizer": optimizer})
    for model in (DENSE, MOE, ENCODER_DECODER):
        for loss in ("full", "kernel", "chunked", "fused"):
            for method in ("full", "lora", "qlora"):
                yield _memory(f"recipe/loss-{loss}/{model}/{method}", model, method, {"loss": loss})
    for quantization in ("nf4", "fp4", "int8", "gptq4", "gptq8", "fp8"):
        for words in (PLAIN, CHECKPOINTED):
            kept = "checkpointed" if words is CHECKPOINTED else "kept"
            yield _memory(
                f"recipe/{quantization}/{kept}", DENSE, "lora", {**words, "quantization": {"type": quantization}}
            )
    yield from _several_gpus()


def _several_gpus() -> Iterator[Case]:
    for model in (DENSE, MOE):
        for strategy, offload in SHARED:
            for method in ("full", "lora"):
                words = {"gpus": 4, "strategy": strategy, "offload": offload}
                name = f"recipe/{strategy}-{offload}/{model}/{method}"
                yield _memory(name, model, method, {**CHECKPOINTED, "parallelism": words})
    for strategy in ("ddp", "zero3", "fsdp"):
        words = {"gradient_accumulation_steps": 4, "parallelism": {"gpus": 8, "strategy": strategy}}
        yield _memory(f"recipe/{strategy}-accumulated/full", DENSE, "full", words)
        yield _memory(f"recipe/{strategy}-quantized/qlora", DENSE, "qlora", words)
    moved = {"gpus": 4, "strategy": "fsdp", "offload": "activations"}
    yield _memory("recipe/fsdp-activations/full", DENSE, "full", {**CHECKPOINTED, "parallelism": moved})


def _other() -> Iterator[Case]:
    """Simulated allocators and what the planner answers."""
    for model, method, words in (
        (DENSE, "full", PLAIN),
        (DENSE, "lora", CHECKPOINTED),
        (DENSE, "qlora", {**CHECKPOINTED, "padded": True}),
        (CONV, "lora", PLAIN),
        (ENCODER_DECODER, "full", PLAIN),
    ):
        case = _memory(f"recipe/simulated/{model}/{method}", model, method, words)
        case["body"]["allocator"] = "simulated"
        yield case
    for model, method, gpu in (
        (DENSE, "full", "t4"),
        ("llama-3.1-8b", "lora", "rtx-3090"),
        ("llama-3.1-8b", "full", "a100-80"),
        (MOE, "qlora", "rtx-4090"),
        ("gemma-2-9b", "lora", "l4"),
    ):
        body = {"model": model, "method": method, "gpu": gpu, "recipe": dict(PLAIN), "tokens": 10_000_000}
        yield {"name": f"fit/{model}/{method}/{gpu}", "ask": "fit", "body": body}
    grid = {"rank": [4, 16], "sequence_length": [128, 256, 512], "micro_batch_size": [1, 3]}
    for model in (DENSE, CONV):
        body = {"model": model, "methods": ["full", "lora"], "recipe": dict(PLAIN), "sweep": grid}
        yield {"name": f"sweep/{model}", "ask": "sweep", "body": body}
    for model in (DENSE, "gemma-2-9b", "mistral-7b-v0.1"):
        body = {"model": model, "adapters": [{"rank": 8, "count": 6}, {"rank": 64, "count": 2}], "gpu": "l40s"}
        yield {"name": f"serving/{model}", "ask": "serving", "body": {**body, "sequence_length": 1024}}


def _memory(name: str, model: str, method: str, words: Mapping[str, Any]) -> Case:
    return {"name": name, "ask": "memory", "body": {"model": model, "method": method, "recipe": {**PLAIN, **words}}}
