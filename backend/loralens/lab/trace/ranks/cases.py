"""Generated cases of one rank: strategies, methods and checkpointing, over families whose ends and layers differ."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Final

from loralens.core.jsontext import JsonObject
from loralens.lab.trace.grid_cases import small_config

Named = tuple[str, JsonObject]

_POLICIES: Final[dict[str, JsonObject]] = {
    "": {},
    "-mp": {"weights_dtype": "float32", "parallelism": {"gather_dtype": "bfloat16", "reduce_dtype": "float32"}},
    "-mp16": {"weights_dtype": "float32", "parallelism": {"gather_dtype": "bfloat16", "reduce_dtype": "bfloat16"}},
}
_DENSE: Final = ("llama-3.1-8b", "llama-3.2-1b", "qwen2.5-7b", "qwen3-4b", "gemma-2-2b", "mistral-7b-v0.3")
_SPARSE: Final = ("mixtral-8x7b", "qwen3-30b-a3b", "gpt-oss-20b", "olmoe-1b-7b")
_ATTENTION: Final = {"rank": 8, "target_modules": ["q_proj", "v_proj"]}
_LINEAR: Final = {"rank": 8, "target_modules": "all-linear"}


def cases() -> Iterator[Named]:
    """Name and request (config, method, recipe) of every case."""
    yield from _families()
    yield from _knobs()
    yield from _widths()
    yield from _experts()
    yield from _selective()
    yield from _pipelines()


def _case(
    name: str,
    model: str,
    method: str,
    mesh: JsonObject,
    *,
    layers: int = 3,
    parallelism: JsonObject | None = None,
    **words: object,
) -> Named:
    recipe = {"micro_batch_size": 1, "sequence_length": 512, "weights_dtype": "bfloat16", "autocast": None, **words}
    config = {**small_config(model, layers), "vocab_size": 8192}  # so that layers matter beside the loss
    return name, {"config": config, "method": method, "recipe": {**recipe, "parallelism": mesh | (parallelism or {})}}


def _families() -> Iterator[Named]:
    """Every family under FSDP2: units, methods and checkpointing."""
    for model, method, checkpointing in product(_DENSE, ("full", "lora"), (True, False)):
        for units, policy, gpus in (("layers", "", 2), ("layers+ends", "-mp", 8)):
            kept = "ckpt" if checkpointing else "whole"
            yield _case(
                f"{model}/fsdp2-{gpus}-{method}-{kept}-{units}{policy}",
                model,
                method,
                {"gpus": gpus, "strategy": "fsdp2", "units": units},
                gradient_checkpointing=checkpointing,
                lora=_LINEAR if method == "lora" else {},
                **_POLICIES[policy],
            )


def _knobs() -> Iterator[Named]:
    """What FSDP2 can be told, on one family."""
    knobs: dict[str, JsonObject] = {
        "keep": {"reshard_after_forward": False}, "reshard2": {"reshard_after_forward": 2}, "hsdp": {"dp_replicate": 2},
        "offload": {"offload": "parameters"},
    }  # fmt: skip
    for (word, knob), policy, checkpointing in product(knobs.items(), _POLICIES, (True, False)):
        for method in ("full", "lora"):
            if word == "offload" and policy == "-mp16":
                continue
            yield _case(
                f"llama-3.1-8b/{word}-{method}-{'ckpt' if checkpointing else 'whole'}{policy}",
                "llama-3.1-8b",
                method,
                {"gpus": 8, "strategy": "fsdp2", **knob},
                gradient_checkpointing=checkpointing,
                lora=_ATTENTION,
                **_POLICIES[policy],
            )
    for unsynchronized, policy, method in product((False, True), ("", "-mp"), ("full", "lora")):
        yield _case(
            f"llama-3.1-8b/accumulating-{method}-{'whole' if unsynchronized else 'shards'}{policy}",
            "llama-3.1-8b",
            method,
            {"gpus": 4, "strategy": "fsdp2", "accumulate_unsynchronized": unsynchronized},
            gradient_accumulation_steps=2,
            lora=_ATTENTION,
            **_POLICIES[policy],
        )


def _widths() -> Iterator[Named]:
    """Matrices cut by transformers' own plan, alone and under FSDP2."""
    for model, width, checkpointing in product(
        ("llama-3.1-8b", "mistral-7b-v0.3", "qwen2.5-7b"), (2, 4), (True, False)
    ):
        for shards in (1, 2):
            strategy = "fsdp2" if shards > 1 else "none"
            yield _case(
                f"{model}/tp{width}-fsdp2-{shards}-{'ckpt' if checkpointing else 'whole'}",
                model,
                "full",
                {"gpus": width * shards, "strategy": strategy, "tp": width},
                gradient_checkpointing=checkpointing,
            )


def _experts() -> Iterator[Named]:
    """Experts divided by transformers' own plan."""
    meshes: dict[str, JsonObject] = {
        "ep4": {"gpus": 4, "ep": 4}, "ep2-of-4": {"gpus": 4, "ep": 2}, "ep4-hsdp": {"gpus": 8, "ep": 4, "dp_replicate": 2},
    }  # fmt: skip
    for model, (word, mesh), checkpointing in product(_SPARSE, meshes.items(), (True, False)):
        for method, policy in (("full", ""), ("full", "-mp"), ("lora", "")):
            if method == "lora" and word != "ep2-of-4":
                continue
            yield _case(
                f"{model}/{word}-{method}-{'ckpt' if checkpointing else 'whole'}{policy}",
                model,
                method,
                {"strategy": "fsdp2", **mesh},
                layers=2,
                gradient_checkpointing=checkpointing,
                lora=_ATTENTION,
                **_POLICIES[policy],
            )
    for model, owners, method in (
        ("qwen3-30b-a3b", 2, "full"),
        ("mixtral-8x7b", 4, "full"),
        ("mixtral-8x7b", 2, "lora"),
    ):
        yield _case(
            f"{model}/ep{owners}-of-4-{method}-offload",
            model,
            method,
            {"gpus": 4, "strategy": "fsdp2", "ep": owners, "offload": "parameters"},
            layers=2,
            gradient_checkpointing=True,
            lora=_ATTENTION,
        )
    for checkpointing in (True, False):
        yield _case(
            f"mixtral-8x7b/tp2-ep4-{'ckpt' if checkpointing else 'whole'}",
            "mixtral-8x7b",
            "full",
            {"gpus": 4, "strategy": "fsdp2", "tp": 2, "ep": 4},
            layers=2,
            gradient_checkpointing=checkpointing,
        )


def _selective() -> Iterator[Named]:
    """Checkpointed layers that save the results of operators too."""
    for model, method, (units, policy) in product(
        ("llama-3.1-8b", "qwen2.5-7b", "gemma-2-2b"), ("full", "lora"), (("layers", "-mp"), ("layers+ends", ""))
    ):
        yield _case(
            f"{model}/ops-{method}-{units}{policy}",
            model,
            method,
            {"gpus": 8, "strategy": "fsdp2", "units": units},
            layers=5,
            sequence_length=2048,
            checkpoint_saves="ops",
            lora=_LINEAR if method == "lora" else {},
            **_POLICIES[policy],
        )
    for model, mesh in (("llama-3.1-8b", {"tp": 2}), ("olmoe-1b-7b", {})):
        yield _case(
            f"{model}/ops-full-{''.join(mesh) or 'fsdp2'}",
            model,
            "full",
            {"gpus": 4, "strategy": "fsdp2", **mesh},
            checkpoint_saves="ops",
            sequence_length=2048,
        )


def _pipelines() -> Iterator[Named]:
    """Stages of torch's own schedules, those above all that cut backward in two."""
    kinds: dict[str, tuple[JsonObject, int]] = {
        "1f1b": ({"schedule": "1f1b"}, 4), "interleaved": ({"schedule": "interleaved", "virtual_stages": 2}, 8),
        "zb": ({"schedule": "zero_bubble"}, 4), "zb2": ({"schedule": "zero_bubble", "virtual_stages": 2}, 8),
        "zbv": ({"schedule": "zero_bubble_v"}, 8),
    }  # fmt: skip
    asked = [("1f1b", 1), ("interleaved", 3), ("zb", 0), ("zb", 1), ("zb", 3), ("zb2", 0), ("zb2", 2), ("zb2", 3)]
    for word, rank in [*asked, ("zbv", 0), ("zbv", 2), ("zbv", 3)]:
        words, layers = kinds[word]
        yield _case(
            f"llama-3.1-8b/pp4-{word}-r{rank}",
            "llama-3.1-8b",
            "full",
            {"gpus": 4, "pp": 4, "pipeline_rank": rank, **words},
            layers=layers,
            gradient_accumulation_steps=8,
            gradient_checkpointing=False,
        )
    for model, method in (("llama-3.1-8b", "lora"), ("qwen2.5-7b", "full")):
        yield _case(
            f"{model}/pp2-zb-{method}",
            model,
            method,
            {"gpus": 2, "pp": 2, "pipeline_rank": 1, "schedule": "zero_bubble"},
            layers=4,
            gradient_accumulation_steps=4,
            gradient_checkpointing=False,
            lora=_LINEAR,
        )
