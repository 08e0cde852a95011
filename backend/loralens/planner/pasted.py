"""A plan as other programs read it: accelerate's config file, transformers' own words, torchtitan's, Megatron's arguments, DeepSpeed's JSON.

Sources of the keys: accelerate 1.15 commands/config/config_args.py (`ClusterConfig`), utils/dataclasses.py
(`ParallelismConfig` in `parallelism_config`, `fsdp_version`, `fsdp_reshard_after_forward`); torchtitan torchtitan/config/
job_config.py (`Parallelism`, `Training`, `ActivationCheckpoint`); Megatron-LM megatron/training/arguments.py; transformers 5.23
distributed/configuration_utils.py (`DistributedConfig`); DeepSpeed edaa722 runtime/constants.py, and `planner.deepspeed`.
accelerate's file has no word for experts. What FSDP2 offloads is weights, gradients and states together or nothing
(torch 2.13 `CPUOffloadPolicy`; torchtitan's `enable_cpu_offload`, transformers' `fsdp_cpu_offload`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from loralens.planner.deepspeed import zero_words

if TYPE_CHECKING:
    from loralens.core.question.recipe import Recipe
    from loralens.planner.shapes import Said

ELSEWHERE: Final = (
    "machine_rank: 0  # on the next machine 1, and so on",
    "main_process_ip: 192.0.2.1  # the first machine's address",
    "main_process_port: 29500",
)
PRECISION = {"bfloat16": "bf16", "float16": "fp16", None: "no"}


LEFT_OUT: Final = {
    "whole": "torchtitan's and Megatron-LM's configs are left out: what is written of them trains all weights, with no adapters and no packed base",
    "states": "no config is written: accelerate, transformers and torchtitan offload weights, gradients and optimizer states together or nothing; "
    "DeepSpeed offloads the states alone (strategy=zero2, zero3)",
    "weights": "Megatron-LM's config is left out: what is written of it keeps the weights on the GPU",
    "activations": "torchtitan's and Megatron-LM's configs are left out: what is written of them keeps activations on the GPU",
}
_BY_OFFLOAD: Final = {"optimizer": "states", "parameters": "weights", "activations": "activations"}


def left_out(recipe: Recipe, method: str) -> list[Said]:
    """Programs without a text for plans of this recipe, and why: they do not train so, or do not offload so."""
    p = recipe.parallelism
    if p.offload_device == "nvme":  # a DeepSpeed plan, whose config leaves the rest to the script
        return []
    key = "whole" if method != "full" and p.offload != "optimizer" else _BY_OFFLOAD.get(p.offload)
    return [{"key": key, "en": LEFT_OUT[key]}] if key else []


def configs(recipe: Recipe, nodes: int, method: str) -> dict[str, str]:
    """Texts to paste, by program; only of programs that can run the plan, and whose config leaves `method` to the script or says it."""
    p = recipe.parallelism
    if p.strategy.startswith("zero"):
        return {"deepspeed": _deepspeed(recipe)}
    if p.offload == "optimizer":
        return {}
    whole = method == "full" and p.offload != "activations"
    found = {"torchtitan": _torchtitan(recipe)} if p.gpus > 1 and whole else {}
    if p.pp == 1 and p.gpus > 1 and p.ep == 1:
        found = {"accelerate": _accelerate(recipe, nodes)} | found
    if p.pp == 1 and p.ep > 1:
        found = {"transformers": _transformers(recipe)} | found
    if whole and p.offload == "none" and (p.tp > 1 or p.pp > 1 or p.ep > 1):
        found |= _megatron(recipe)
    return found


def _shards(recipe: Recipe) -> tuple[int, int]:
    """Copies, and GPUs that shard one, context apart."""
    p = recipe.parallelism
    if p.strategy in ("none", "ddp"):
        return p.data_parallel // p.cp, 1
    return p.dp_replicate, max(1, p.sharding // p.cp)


def _accelerate(recipe: Recipe, nodes: int) -> str:
    p = recipe.parallelism
    copies, shards = _shards(recipe)
    sharded = shards > 1 or p.tp * p.cp > 1
    lines = [
        "compute_environment: LOCAL_MACHINE",
        f"distributed_type: {'FSDP' if sharded else 'MULTI_GPU'}",
        f"num_machines: {nodes}",
        *(ELSEWHERE if nodes > 1 else ()),
        f"num_processes: {p.gpus}",
        f"mixed_precision: {PRECISION[p.gather_dtype or recipe.autocast]!r}",
    ]
    if not sharded:
        return "\n".join(lines) + "\n"
    lines += [
        "fsdp_config:",
        "  fsdp_version: 2",
        "  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP",
        f"  fsdp_reshard_after_forward: {_yes(p.reshard_after_forward is not False)}",
        f"  fsdp_offload_params: {_yes(p.offload == 'parameters')}",
        f"  fsdp_activation_checkpointing: {_yes(recipe.gradient_checkpointing)}",
        "  fsdp_state_dict_type: SHARDED_STATE_DICT",
        "parallelism_config:",
        f"  parallelism_config_dp_replicate_size: {copies}",
        f"  parallelism_config_dp_shard_size: {shards}",
        f"  parallelism_config_tp_size: {p.tp}",
        f"  parallelism_config_cp_size: {p.cp}",
    ]
    return "\n".join(lines) + "\n"


def _transformers(recipe: Recipe) -> str:
    p = recipe.parallelism
    copies, shards = _shards(recipe)
    words: dict[str, int | bool] = {
        "fsdp_size": shards, "dp_replicate_size": copies, "tp_size": p.tp, "ep_size": p.ep,
        **({"fsdp_cpu_offload": True} if p.offload == "parameters" else {}),
    }  # fmt: skip
    return (
        "from transformers.distributed import DistributedConfig\n\n"
        f"distributed_config = DistributedConfig({', '.join(f'{name}={value}' for name, value in words.items())})\n"
    )


def _torchtitan(recipe: Recipe) -> str:
    p = recipe.parallelism
    copies, shards = _shards(recipe)
    reshard = "always" if p.reshard_after_forward is not False else "never"
    lines = [
        "[parallelism]",
        f"data_parallel_replicate_degree = {copies}",
        f"data_parallel_shard_degree = {shards}",
        f'fsdp_reshard_after_forward = "{reshard}"',
        f"tensor_parallel_degree = {p.tp}",
        f"context_parallel_degree = {p.cp}",
        f"pipeline_parallel_degree = {p.pp}",
        *([f"expert_parallel_degree = {p.ep}"] if p.ep > 1 else []),
        *([f'pipeline_parallel_schedule = "{SCHEDULES[p.schedule]}"'] if p.pp > 1 else []),
        "",
        "[training]",
        f"local_batch_size = {recipe.micro_batch_size * (recipe.gradient_accumulation_steps if p.pp > 1 else 1)}",
        f"seq_len = {recipe.sequence_length}",
        *(["enable_cpu_offload = true"] if p.offload == "parameters" else []),
        "",
        "[activation_checkpoint]",
        *_checkpoints(recipe),
    ]
    return "\n".join(lines) + "\n"


def _checkpoints(recipe: Recipe) -> list[str]:
    if recipe.gradient_checkpointing and recipe.checkpoint_saves == "ops":
        return ['mode = "selective"', 'selective_ac_option = "op"']
    return [f'mode = "{"full" if recipe.gradient_checkpointing else "none"}"']


def _deepspeed(recipe: Recipe) -> str:
    """DeepSpeed's JSON: what a plan decides; optimizer and schedule are the script's."""
    named = {"bfloat16": "bf16", "float16": "fp16"}.get(recipe.weights_dtype)
    found: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": recipe.micro_batch_size,
        "gradient_accumulation_steps": recipe.gradient_accumulation_steps,
        **({named: {"enabled": True}} if named else {}),
    }
    for name, value in zero_words(recipe).items():
        *outer, last = "zero_optimization", *name.split(".")
        place = found
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = value
    return json.dumps(found, indent=2) + "\n"


SCHEDULES = {
    "gpipe": "GPipe", "1f1b": "1F1B", "interleaved": "Interleaved1F1B", "zero_bubble": "InterleavedZeroBubble",
    "zero_bubble_v": "ZBVZeroBubble",
}  # fmt: skip


def _megatron_shards(recipe: Recipe) -> list[str] | None:
    """Megatron-LM's words for what data-parallel GPUs share out; None where it has none. Its own optimizer leaves whole weights.

    Source: Megatron Core developer guide, Megatron FSDP, which goes with tensor, expert and context parallelism.
    """
    copies, shards = _shards(recipe)
    if recipe.parallelism.strategy == "megatron":
        return ["--use-distributed-optimizer"]
    if shards == 1:
        return []
    if recipe.parallelism.pp > 1 or copies > 1:
        return None
    return [
        "--use-megatron-fsdp",
        "--data-parallel-sharding-strategy optim_grads_params",
        "--no-gradient-accumulation-fusion",
        "--use-distributed-optimizer",
        "--ckpt-format fsdp_dtensor",
    ]


def _megatron(recipe: Recipe) -> dict[str, str]:
    """Its arguments; nothing where it does not share out what the plan does."""
    p, shared = recipe.parallelism, _megatron_shards(recipe)
    if shared is None:
        return {}
    copies, shards = _shards(recipe)
    samples = recipe.micro_batch_size * recipe.gradient_accumulation_steps * copies * shards
    words = [
        f"--tensor-model-parallel-size {p.tp}",
        *(["--sequence-parallel"] if p.tp > 1 and p.sequence_parallel else []),
        f"--pipeline-model-parallel-size {p.pp}",
        f"--context-parallel-size {p.cp}",
        *([f"--expert-model-parallel-size {p.ep}"] if p.ep > 1 else []),
        *shared,
        f"--micro-batch-size {recipe.micro_batch_size}",
        f"--global-batch-size {samples}",
        f"--seq-length {recipe.sequence_length}",
        *(["--recompute-granularity full --recompute-method uniform --recompute-num-layers 1"]
          if recipe.gradient_checkpointing else []),
    ]  # fmt: skip
    return {"megatron": " \\\n  ".join(words) + "\n"}


def _yes(value: bool) -> str:
    return "true" if value else "false"
