"""How many GPUs share the work: DeepSpeed and FSDP keys, and the accelerate or DeepSpeed files beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from loralens.core.question.versions import read_version
from loralens.trainers.files import SourceFile, flat
from loralens.trainers.reading import Reading

_STAGE = re.compile(r"z(?:ero)?[-_]?([0-3])", re.IGNORECASE)


VERSIONS = ("fsdp_config.fsdp_version", "fsdp_config.version", "fsdp_version")


OFFLOADS = (
    "fsdp_config.offload_params",
    "fsdp_config.fsdp_offload_params",
    "fsdp_config.cpu_offload",
    "fsdp_cpu_offload",
)


def parallelism(r: Reading, gpus: int | None = None) -> None:
    """`strategy`, `offload` and `gpus`. `gpus`: as the file itself says."""
    keys: list[str] = []
    strategy, offload = "", "none"
    if r.true("deepspeed") or any(key.startswith("deepspeed.") for key in r.source.settings):
        keys = [key for key in r.source.settings if key.split(".")[0] == "deepspeed"]
        strategy, offload = _deepspeed(r, keys[0])
    elif _fsdp(r):
        keys = [key for key in r.source.settings if key.startswith("fsdp") and r.true(key)]
        strategy = "fsdp2" if str(r.get(*VERSIONS) or _version(r)) == "2" else "fsdp"
        listed = r.get("fsdp")
        listed = listed.replace(",", " ").split() if isinstance(listed, str) else r.names(listed or [])
        spread = r.true(*OFFLOADS)
        offload = "parameters" if spread or "offload" in listed else "none"
        if str(r.get("fsdp_config.sharding_strategy", "fsdp_config.fsdp_sharding_strategy")).upper() not in (
            "NONE",
            "FULL_SHARD",
        ):
            r.near("weights are not resharded after forward", *keys)
    accelerate = _accelerate(r)
    if accelerate is not None:
        strategy, offload, found = _from_accelerate(r, accelerate, strategy, offload)
        gpus = gpus or found
    gpus = r.gpus or gpus
    if strategy and not gpus:
        r.ask("how many GPUs? the file does not say: judged for one, which holds everything; say --gpus N")
    if not strategy and gpus and gpus > 1:
        strategy = "ddp"
    if strategy:
        r.say("strategy", strategy, *keys)
        if strategy == "fsdp2":
            _second(r, keys)
        if strategy.startswith("zero"):
            _zero_words(r, strategy, keys)
        r.say("offload", offload, *keys)
        r.say("gpus", gpus or 1)


def _version(r: Reading) -> int:
    """Which FSDP where nothing says it: the Trainer's has been the second since transformers 5.10 (5.8: the first).

    ms-swift 4.6.0 takes transformers below 5.20 and Unsloth 2026.10.9 up to 5.17, and both hand it on to the Trainer. Axolotl leaves it
    to accelerate, and LLaMA-Factory 0.9.5 takes transformers up to 5.6: the first.
    """
    newest = read_version(r.stack.get("transformers", "5.23")) >= (5, 10)
    return 2 if newest and r.table.trainer in ("trl", "transformers", "ms-swift", "unsloth") else 1


def _second(r: Reading, keys: list[str]) -> None:
    """FSDP2's own words: accelerate gathers, and reduces, in the mixed precision's dtype (`MixedPrecisionPolicy`)."""
    reshard = r.get("fsdp_config.fsdp_reshard_after_forward", "fsdp_config.reshard_after_forward")
    if isinstance(reshard, bool):
        r.say("reshard_after_forward", reshard, *keys)
    for key, dtype in (("bf16", "bfloat16"), ("fp16", "float16")):
        if r.get(key) in (True, "true", "auto", "full"):
            r.say("gather_dtype", dtype, key, *keys)
            r.say("reduce_dtype", dtype, key, *keys)
            return


def _fsdp(r: Reading) -> bool:
    return r.true("fsdp") or any(
        r.true(key) for key in r.source.settings if key.startswith("fsdp_config.") or key == "fsdp_version"
    )


def _config(r: Reading) -> Mapping[str, Any]:
    """DeepSpeed's own config: a file beside, or an object in this one."""
    value = r.get("deepspeed")
    beside = _named(r, value) if isinstance(value, str) else None
    whole = beside.whole if beside is not None else r.source.whole.get("deepspeed")
    return flat(whole) if isinstance(whole, Mapping) else {}


# Source: DeepSpeed edaa722 runtime/zero/config.py (names and aliases)
_SIZES = {
    "reduce_bucket_size": ("reduce_bucket_size",),
    "prefetch_bucket_size": ("stage3_prefetch_bucket_size", "prefetch_bucket_size"),
    "sub_group_size": ("sub_group_size",),
    "persistence_threshold": ("stage3_param_persistence_threshold", "param_persistence_threshold"),
}


_BUFFERS = {
    "param_buffer_count": "offload_param.buffer_count",
    "param_buffer_size": "offload_param.buffer_size",
    "max_in_cpu": "offload_param.max_in_cpu",
    "optimizer_buffer_count": "offload_optimizer.buffer_count",
}  # Source: DeepSpeed edaa722 runtime/zero/offload_config.py


def _zero_words(r: Reading, strategy: str, keys: list[str]) -> None:
    """Sizes of buckets, ZeRO++'s words, and what waits on NVMe."""
    words = _config(r)

    def given(*names: str) -> Any:
        return next(
            (words[f"zero_optimization.{name}"] for name in names if f"zero_optimization.{name}" in words), None
        )

    for word, names in _SIZES.items():
        size = given(*names)
        if size is not None and (word == "reduce_bucket_size" or strategy == "zero3"):
            r.say(word, int(size) if isinstance(size, float) else size, *keys)
    second = given("zero_hpz_partition_size")
    if strategy == "zero3" and isinstance(second, int) and second > 1:
        r.say("hpz_partition", second, *keys)
    for name, says in (
        ("zero_quantized_weights", "weights are sent in 8 bits (zero_quantized_weights)"),
        (
            "zero_quantized_nontrainable_weights",
            "frozen weights are held in 8 bits (zero_quantized_nontrainable_weights)",
        ),
        ("zero_quantized_gradients", "gradients are sent in 4 bits (zero_quantized_gradients)"),
    ):
        if given(name) is True:
            r.near(says, *keys)
    if words.get("expert_parallel.enabled") is True:
        r.near("experts are divided by DeepSpeed's AutoEP, whose layers are its own (expert_parallel)", *keys)
    devices = {part: given(f"offload_{part}.device") for part in ("param", "optimizer")}
    waiting = {device for device in devices.values() if device not in (None, "none")}
    if strategy == "zero3" and waiting == {"nvme"} and devices["optimizer"] == "nvme":
        r.say("offload_device", "nvme", *keys)
        for word, name in _BUFFERS.items():
            size = given(name)
            if isinstance(size, int | float) and (devices["param"] == "nvme" or not name.startswith("offload_param")):
                r.say(word, int(size) if isinstance(size, float) else size, *keys)
    elif "nvme" in waiting:
        r.near("what waits on NVMe is counted as if it were in host memory (offload_{param,optimizer}.device)", *keys)


def _deepspeed(r: Reading, key: str) -> tuple[str, str]:
    value = r.get("deepspeed")
    if isinstance(value, str):
        beside = _named(r, value)
        if beside is not None:
            return _zero(beside.whole)
        match = _STAGE.search(PurePath(value).name)
        if match is None:
            r.ask(f"{value[:80]} is not among the files: counted as ZeRO-2; give it as well")
            return "zero2", "none"
        stage = int(match[1])
        offloads = "offload" in value
        if value.endswith("params.json") and offloads:
            r.near("parameters on the host and states on the card", key)
        return _by_stage(stage, offloads, offloads)
    whole = r.source.whole.get("deepspeed")
    return _zero(whole if isinstance(whole, Mapping) else {})


def _by_stage(stage: int, states: bool, parameters: bool) -> tuple[str, str]:
    if stage == 0:
        return "ddp", "none"
    if stage == 3 and parameters:
        return "zero3", "parameters"
    return f"zero{stage}", "optimizer" if states else "none"


def _zero(config: Mapping[str, Any]) -> tuple[str, str]:
    words = flat(config)
    stage = words.get("zero_optimization.stage", 0)
    states, parameters = (
        words.get(f"zero_optimization.offload_{name}.device", "none") not in ("none", None)
        for name in ("optimizer", "param")
    )
    return _by_stage(stage if stage in (0, 1, 2, 3) else 2, states, parameters)


def _named(r: Reading, path: str) -> SourceFile | None:
    name = PurePath(path).name
    return next((found for key, found in r.files.items() if PurePath(key).name == name), None)


def _accelerate(r: Reading) -> SourceFile | None:
    return next((one for one in r.files.values() if "distributed_type" in one.settings), None)


def _from_accelerate(r: Reading, found: SourceFile, strategy: str, offload: str) -> tuple[str, str, int | None]:
    words = {key: one.value for key, one in found.settings.items()}
    kind = str(words.get("distributed_type", "NO")).upper()
    gpus = words.get("num_processes")
    gpus = gpus if isinstance(gpus, int) and not isinstance(gpus, bool) else None
    if kind == "FSDP":
        strategy = "fsdp2" if words.get("fsdp_config.fsdp_version") in (2, "2") else "fsdp"
        offload = "parameters" if words.get("fsdp_config.fsdp_offload_params") is True else "none"
    elif kind == "DEEPSPEED" and not strategy:
        stage = words.get("deepspeed_config.zero_stage", 2)
        states, parameters = (
            words.get(f"deepspeed_config.offload_{name}_device", "none") not in ("none", None)
            for name in ("optimizer", "param")
        )
        strategy, offload = _by_stage(stage if stage in (0, 1, 2, 3) else 2, states, parameters)
    elif kind == "MULTI_GPU" and not strategy:
        strategy = "ddp"
    return strategy, offload, gpus
