"""A recipe under ZeRO in the words of DeepSpeed's `zero_optimization`, dotted.

Sources: DeepSpeed edaa722 runtime/zero/config.py, runtime/zero/offload_config.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from loralens.core.question.recipe import Recipe

NVME_PATH: Final = "/local_nvme"  # where the drive is mounted, as DeepSpeed's documentation has it; to be set by hand


def zero_words(recipe: Recipe) -> dict[str, Any]:
    """Stage and offloading, and of everything else what is not DeepSpeed's default."""
    p = recipe.parallelism
    words: dict[str, Any] = {"stage": int(p.strategy[-1])}
    if p.offload in ("optimizer", "parameters"):
        words["offload_optimizer.device"] = p.offload_device
    if p.offload == "parameters":
        words["offload_param.device"] = p.offload_device
    if p.offload_device == "nvme":
        words |= _drive(recipe)
    third = {
        "stage3_prefetch_bucket_size": p.prefetch_bucket_size,
        "stage3_param_persistence_threshold": p.persistence_threshold,
        "sub_group_size": p.sub_group_size,
        "zero_hpz_partition_size": p.hpz_partition,
    }
    words |= {"reduce_bucket_size": p.reduce_bucket_size} | (third if p.strategy == "zero3" else {})
    return {name: value for name, value in words.items() if value is not None}


def _drive(recipe: Recipe) -> dict[str, Any]:
    p = recipe.parallelism
    words = {"offload_optimizer.nvme_path": NVME_PATH, "offload_optimizer.buffer_count": p.optimizer_buffer_count}
    weights = {
        "offload_param.nvme_path": NVME_PATH,
        "offload_param.buffer_count": p.param_buffer_count,
        "offload_param.buffer_size": p.param_buffer_size,
        "offload_param.max_in_cpu": p.max_in_cpu,
    }
    return words | (weights if p.offload == "parameters" else {})
