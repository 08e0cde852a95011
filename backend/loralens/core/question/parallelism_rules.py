"""Which words of several GPUs go together: what does not divide, and what the libraries themselves refuse."""

from __future__ import annotations

from typing import Any, Final

from loralens.core.errors import InvalidInput
from loralens.core.question.needs import SHARDED
from loralens.core.question.parallelism import STRATEGIES, Parallelism

GROUPED: Final = ("fsdp2", "megatron")  # strategies that shard within groups


def go_together(p: Parallelism) -> None:
    """Whether the words of several GPUs make a set-up.

    Raises:
        InvalidInput: they do not; the hint names a way out.
    """
    cut = p.model_parallel * p.cp
    if p.gpus % cut:
        raise InvalidInput(
            f"{p.gpus} GPUs do not divide into tp {p.tp} × cp {p.cp} × pp {p.pp}",
            field="parallelism.gpus",
            hint=f"try gpus={min(65_536, -(-p.gpus // cut) * cut)}",
        )
    if p.gpus > cut and p.strategy == "none":
        raise InvalidInput(
            f"{p.gpus // cut if cut > 1 else p.gpus} GPUs need a strategy; allowed: {', '.join(STRATEGIES[1:])}",
            field="parallelism.strategy",
            hint="try strategy=ddp, or fsdp2 to shard the weights" if p.ep == 1 else "try strategy=fsdp2",
        )
    if p.offload == "parameters" and p.strategy not in ("zero3", "fsdp", "fsdp2"):
        raise InvalidInput(
            f"offload=parameters brings weights back unit by unit, which strategy={p.strategy} does not do",
            field="parallelism.offload",
            hint="try strategy=fsdp2 or zero3 (one GPU is enough), or offload=optimizer",
        )
    _drive_is_used(p)
    if p.strategy in GROUPED and p.data_parallel % p.dp_replicate:
        raise InvalidInput(
            f"{p.gpus} GPUs do not divide into {p.dp_replicate} groups",
            field="parallelism.dp_replicate",
            hint="try a divisor of gpus",
        )
    if p.ep > 1:
        _experts_divide(p)
    _as_library_takes_it(p)
    if p.hpz_partition and p.strategy == "zero3" and p.data_parallel % p.hpz_partition:
        raise InvalidInput(
            f"{p.data_parallel} GPUs do not divide into groups of {p.hpz_partition}",
            field="parallelism.hpz_partition",
            hint="try the GPUs of one machine, a divisor of gpus",
        )
    if p.pipeline_rank is not None and p.pipeline_rank >= p.pp > 1:
        raise InvalidInput(
            f"pipeline_rank {p.pipeline_rank} is none of {p.pp} stages",
            field="parallelism.pipeline_rank",
            hint=f"try pipeline_rank={p.pp - 1}, or leave it out for the fullest",
        )


def _drive_is_used(p: Parallelism) -> None:
    """Whether ZeRO-3 puts something on the drive that is asked for.

    Sources: DeepSpeed edaa722 runtime/zero/stage_1_and_2.py (`__init__`: any device but `none` is host memory),
    runtime/zero/offload_config.py (weights: stage 3 alone).

    Raises:
        InvalidInput: another strategy, or nothing that waits off the GPU.
    """
    if p.offload_device != "nvme":
        return
    if p.strategy != "zero3":
        raise InvalidInput(
            f"offload_device=nvme with strategy={p.strategy}: only DeepSpeed's stage 3 swaps to a drive",
            field="parallelism.offload_device",
            hint="try strategy=zero3 (one GPU is enough), or offload_device=cpu",
        )
    if p.offload not in ("optimizer", "parameters"):
        raise InvalidInput(
            f"offload_device=nvme with offload={p.offload}: nothing of it waits on a drive",
            field="parallelism.offload_device",
            hint="try offload=optimizer or parameters, or offload_device=cpu",
        )


def _as_library_takes_it(p: Parallelism) -> None:
    """What the library itself refuses.

    Sources: DeepSpeed edaa722 runtime/pipe/engine.py (`PipelineEngine`); torch 2.13 distributed/fsdp/_fully_shard/_fsdp_init.py.

    Raises:
        InvalidInput: stages with weights or gradients that ZeRO divides; a number of GPUs that does not divide those that shard.
    """
    if p.pp > 1 and p.strategy in ("zero2", "zero3"):
        raise InvalidInput(
            f"DeepSpeed's pipeline refuses strategy={p.strategy}: ZeRO-2 and ZeRO-3 are incompatible with its stages",
            field="parallelism.strategy",
            hint="try strategy=zero1, or fsdp2 under torch's schedules",
        )
    kept = p.reshard_after_forward
    if p.strategy == "fsdp2" and not isinstance(kept, bool) and p.sharding % kept and p.sharding > 1:
        raise InvalidInput(
            f"reshard_after_forward={kept} does not divide the {p.sharding} GPUs that shard, which FSDP2 refuses",
            field="parallelism.reshard_after_forward",
            hint="try a divisor of the GPUs that shard, true or false",
        )


def _experts_divide(p: Parallelism) -> None:
    """Experts are divided among GPUs that tensor parallelism and shards have divided already.

    Source: transformers 5.23 distributed/configuration_utils.py, `DistributedConfig._validate_mesh_config`.

    Raises:
        InvalidInput: they do not divide, or a word that is not modelled beside.
    """
    inside = p.tp * p.sharding
    if p.ep % p.tp or inside % p.ep:
        raise InvalidInput(
            f"ep {p.ep} is no multiple of tp {p.tp} that divides the {inside} GPUs of one copy",
            field="parallelism.ep",
            hint=f"try ep={inside}" if inside > 1 else f"try gpus={p.ep} with strategy=fsdp2",
        )
    for holds, reason, hint in _beside_experts(p):
        if holds:
            raise InvalidInput(reason, field="parallelism.ep", hint=hint)


def _beside_experts(p: Parallelism) -> list[tuple[bool, str, str]]:
    """What transformers 5.23 does not run beside divided experts, or does otherwise: whether it is asked for, why not, the way out.

    Sources: transformers 5.23 distributed/configuration_utils.py (`enable_sequence_parallel`: not wired up; `fsdp_cpu_offload`
    alone is offloaded), distributed/fsdp.py; DeepSpeed edaa722 module_inject/auto_ep.py.
    """
    own = "try strategy=fsdp2 with the other words left out, or ep=1"
    return [
        (
            p.strategy.startswith("zero"),
            f"ep with strategy={p.strategy}: DeepSpeed's AutoEP puts layers of its own in place of a model's experts, which are "
            "not modelled",
            own,
        ),
        (
            p.strategy not in ("none", "fsdp2") and not p.strategy.startswith("zero"),
            f"ep with strategy={p.strategy}: transformers divides experts among GPUs that FSDP2 shards, and no other way is modelled",
            own,
        ),
        (
            p.offload == "optimizer",
            "ep with offload=optimizer: transformers offloads all that FSDP2 shards or nothing (fsdp_cpu_offload)",
            "try offload=parameters, or ep=1",
        ),
        (
            p.sequence_parallel and p.tp > 1,
            "ep with sequence_parallel: transformers has reserved it beside its plans and does not run it yet",
            "leave out sequence_parallel, or ep=1",
        ),
        (
            p.units == "layers" and p.sharding > 1,
            "ep with units=layers: transformers makes units of embedding, and of norm with head, too",
            "try units=layers+ends, or ep=1",
        ),
        (
            p.accumulate_unsynchronized,
            "ep with accumulate_unsynchronized: transformers reduces experts' gradients after every micro-batch",
            "leave out accumulate_unsynchronized, or ep=1",
        ),
    ]


def segments_alone(recipe: Any) -> None:
    """Segments of several layers are of the one-GPU loop, and exclude the other way to keep more."""
    shared = recipe.parallelism.strategy in SHARDED or recipe.checkpoint_offload != "none"
    if recipe.checkpoint_every == 1 and not shared:
        return
    beside = "weights that are gathered layer by layer, or with checkpoint_offload" if shared else "checkpoint_every"
    raise InvalidInput(
        f"checkpoint_segment above 1 is not modelled together with {beside}",
        field="checkpoint_segment",
        hint="try checkpoint_segment=1",
    )
