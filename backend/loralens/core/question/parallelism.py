"""The words of several GPUs, and what else does not go together with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from loralens.core.errors import InvalidInput
from loralens.core.question.kinds import Choice, Maybe, Number, Truth, Whole
from loralens.core.question.mesh import Elements, Reshard, spread
from loralens.core.question.needs import (
    BUCKETS,
    CHECKPOINTS_TO_OFFLOAD,
    CONTEXT,
    COPIES,
    CUT_AT_WILL,
    FSDP2,
    INTERLEAVED,
    INTERLEAVING,
    NVME,
    NVME_WEIGHTS,
    PIPELINE,
    SHARDED,
    SHARES,
    TENSOR,
    UNSYNCHRONIZED,
    ZERO,
    ZERO3,
)
from loralens.core.question.words import read_group, word

STRATEGIES: Final = ("none", "ddp", "zero1", "zero2", "zero3", "fsdp", "fsdp2", "megatron")
OFFLOADS: Final = ("none", "optimizer", "parameters", "activations")
OFFLOAD_DEVICES: Final = ("cpu", "nvme")  # as DeepSpeed spells them
GROUPED: Final = ("fsdp2", "megatron")  # strategies that shard within groups
DTYPES: Final = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Parallelism:
    """How many GPUs share the work, by which strategy, and what is kept on the host instead."""

    gpus: int = word(1, Whole(1, 65_536), "GPUs that share the work.", common=True)
    strategy: str = word(
        "none",
        Choice(STRATEGIES),
        "How the GPUs share the work.",
        common=True,
        needs=(SHARES,),
    )
    offload: str = word(
        "none",
        Choice(OFFLOADS),
        "What is offloaded to host memory.",
        needs=(CHECKPOINTS_TO_OFFLOAD,),
    )
    offload_device: str = word(
        "cpu", Choice(OFFLOAD_DEVICES), "ZeRO-3: where what is offloaded waits; nvme: on a drive (ZeRO-Infinity)."
    )
    param_buffer_count: int | None = word(
        None, Maybe(Whole(1, 10_000)), "Weights on NVMe: pinned buffers for them; none: 5.", needs=(NVME_WEIGHTS,)
    )
    param_buffer_size: int | None = word(
        None,
        Maybe(Whole(1, 10**12)),
        "Weights on NVMe: elements of a buffer, which has to hold every weight's part; none: 1e8.",
        needs=(NVME_WEIGHTS,),
    )
    max_in_cpu: int | None = word(
        None,
        Maybe(Whole(0, 10**12)),
        "Weights on NVMe: elements of trained ones that have a place in host memory all the same; none: 1e9.",
        needs=(NVME_WEIGHTS,),
    )
    optimizer_buffer_count: int | None = word(
        None,
        Maybe(Whole(4, 10_000)),
        "States on NVMe: pinned buffers, each of a sub-group's size; none: 4, what Adam needs.",
        needs=(NVME,),
    )
    dp_replicate: int = word(
        1,
        Whole(1, 65_536),
        "Groups of GPUs that each hold everything between them (HSDP); the GPUs of one group shard.",
        needs=(COPIES,),
    )
    reshard_after_forward: bool | int = word(
        True,
        Reshard(),
        "FSDP2 frees a unit's weights after its forward: true, false, or among how many GPUs it keeps them.",
        needs=(FSDP2,),
    )
    units: str = word(
        "layers+ends",
        Choice(("layers", "layers+ends")),
        "FSDP2's units: each layer; +ends: embedding, and norm with head, apart (accelerate, transformers, torchtitan).",
        needs=(FSDP2,),
    )
    gather_dtype: str | None = word(
        None,
        Maybe(Choice(DTYPES)),
        "FSDP2's mixed precision: the dtype in which weights are gathered and used; none: their own.",
        needs=(FSDP2,),
    )
    reduce_dtype: str | None = word(
        None,
        Maybe(Choice(DTYPES)),
        "FSDP2's mixed precision: the dtype in which gradients are reduced; none: that of the gathered weights.",
        needs=(FSDP2,),
    )
    accumulate_unsynchronized: bool = word(
        False,
        Truth(),
        "FSDP2 keeps whole gradients until the last micro batch, and reduces them once.",
        needs=(FSDP2, UNSYNCHRONIZED),
    )
    bucket_view: bool = word(
        False,
        Truth(),
        "DDP's gradients lie in its buckets (gradient_as_bucket_view).",
        needs=(BUCKETS,),
    )

    reduce_bucket_size: int | str | None = word(
        None, Elements(), "DeepSpeed's: elements of gradients reduced together; none: 5e8.", needs=(ZERO,)
    )
    prefetch_bucket_size: int | str | None = word(
        None, Elements(), "ZeRO-3: elements fetched ahead; none: 5e7.", needs=(ZERO3,)
    )
    persistence_threshold: int | str | None = word(
        None, Elements(), "ZeRO-3: weights of at most so many elements stay whole; none: 1e5.", needs=(ZERO3,)
    )
    sub_group_size: int | None = word(
        None, Maybe(Whole(1, 10**12)), "ZeRO-3: elements that are updated at a time; none: 1e9.", needs=(ZERO3,)
    )
    hpz_partition: int | None = word(
        None,
        Maybe(Whole(2, 1_024)),
        "ZeRO++ (hpZ): GPUs of a machine that divide a second copy of the weights, which backward gathers; none: no copy.",
        needs=(ZERO3,),
    )
    tp: int = word(1, Whole(1, 65_536), "GPUs among which every layer's matrices are cut (tensor parallel).")
    sequence_parallel: bool = word(
        False, Truth(), "With tp: the residual stream is cut along the sequence.", needs=(TENSOR,)
    )
    loss_parallel: bool = word(
        False, Truth(), "With tp: the loss works on each GPU's part of the vocabulary.", needs=(TENSOR, CUT_AT_WILL)
    )
    vocabulary_parallel: bool = word(
        True,
        Truth(),
        "With tp: the embedding is cut along the vocabulary (one tied to the head always is); false: whole on every GPU.",
        needs=(TENSOR, CUT_AT_WILL),
    )
    cp: int = word(1, Whole(1, 65_536), "GPUs among which the sequence is cut (context parallel).")
    context: str = word(
        "ring",
        Choice(("ring", "ulysses")),
        "With cp: keys and values go around, or heads are traded for the sequence.",
        needs=(CONTEXT,),
    )
    ep: int = word(
        1,
        Whole(1, 65_536),
        "GPUs among which every layer's experts are divided (expert parallel); of those that tp and the shards divide.",
    )
    pp: int = word(1, Whole(1, 65_536), "GPUs among which the layers are cut (pipeline stages).")
    schedule: str = word(
        "1f1b",
        Choice(("gpipe", "1f1b", "interleaved", "zero_bubble", "zero_bubble_v", "sequential")),
        "With pp: in what order micro batches run; sequential: one after another, card by card (device_map).",
        needs=(PIPELINE,),
    )
    virtual_stages: int = word(
        1,
        Whole(1, 1_000),
        "With pp: stages on each GPU, of the interleaved and zero_bubble schedules.",
        needs=(PIPELINE, INTERLEAVED),
    )
    pipeline_rank: int | None = word(
        None, Maybe(Whole(0, 65_535)), "With pp: the GPU that is asked about; none: the fullest.", needs=(PIPELINE,)
    )

    machine_gpus: int | None = word(
        None, Maybe(Whole(1, 1_024)), "GPUs of one machine, which share its memory; none: all, up to 8."
    )
    host_memory: float | None = word(
        None,
        Maybe(Number(1, 1e6)),
        "Memory of one machine in GiB; none: not known, so what a run takes of it is said and not judged.",
    )

    @property
    def model_parallel(self) -> int:
        """GPUs that hold one model between them, not counting its shards."""
        return self.tp * self.pp

    @property
    def data_parallel(self) -> int:
        """GPUs that have the same part of the model, each for its own tokens."""
        return max(1, self.gpus // self.model_parallel)

    @property
    def stages_per_gpu(self) -> int:
        """Pipeline stages on one GPU: several only where they are interleaved, two where they make a V."""
        return 2 if self.schedule == "zero_bubble_v" else self.virtual_stages if self.schedule in INTERLEAVING else 1

    @property
    def sharding(self) -> int:
        """GPUs among which one copy is sharded."""
        return max(1, self.data_parallel // self.dp_replicate)

    @property
    def expert_sharding(self) -> int:
        """GPUs that have the same experts, and shard them."""
        return self.sharding * self.tp // self.ep

    @staticmethod
    def from_mapping(given: Any) -> Parallelism:
        """Read the `parallelism` object, with or without a mesh (see `mesh`); raises `InvalidInput`."""
        given = spread(given) if isinstance(given, Mapping) else given
        found = Parallelism(**read_group(Parallelism, "parallelism", given))
        cut = found.model_parallel * found.cp
        if "gpus" not in (given or {}):
            found = replace(found, gpus=min(cut, 65_536))
        if found.gpus % cut:
            raise InvalidInput(
                f"{found.gpus} GPUs do not divide into tp {found.tp} × cp {found.cp} × pp {found.pp}",
                field="parallelism.gpus",
                hint=f"try gpus={min(65_536, -(-found.gpus // cut) * cut)}",
            )
        if found.gpus > cut and found.strategy == "none":
            raise InvalidInput(
                f"{found.gpus // cut if cut > 1 else found.gpus} GPUs need a strategy; allowed: {', '.join(STRATEGIES[1:])}",
                field="parallelism.strategy",
                hint="try strategy=ddp, or fsdp2 to shard the weights" if found.ep == 1 else "try strategy=fsdp2",
            )
        if found.offload == "parameters" and found.strategy not in ("zero3", "fsdp", "fsdp2"):
            raise InvalidInput(
                f"offload=parameters brings weights back unit by unit, which strategy={found.strategy} does not do",
                field="parallelism.offload",
                hint="try strategy=fsdp2 or zero3 (one GPU is enough), or offload=optimizer",
            )
        _drive_is_used(found)
        if found.strategy in GROUPED and found.data_parallel % found.dp_replicate:
            raise InvalidInput(
                f"{found.gpus} GPUs do not divide into {found.dp_replicate} groups",
                field="parallelism.dp_replicate",
                hint="try a divisor of gpus",
            )
        if found.ep > 1:
            experts_divide(found)
        _as_library_takes_it(found)
        if found.hpz_partition and found.strategy == "zero3" and found.data_parallel % found.hpz_partition:
            raise InvalidInput(
                f"{found.data_parallel} GPUs do not divide into groups of {found.hpz_partition}",
                field="parallelism.hpz_partition",
                hint="try the GPUs of one machine, a divisor of gpus",
            )
        if found.pipeline_rank is not None and found.pipeline_rank >= found.pp > 1:
            raise InvalidInput(
                f"pipeline_rank {found.pipeline_rank} is none of {found.pp} stages",
                field="parallelism.pipeline_rank",
                hint=f"try pipeline_rank={found.pp - 1}, or leave it out for the fullest",
            )
        return found


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


def experts_divide(p: Parallelism) -> None:
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
            "ep with accumulate_unsynchronized: transformers reduces experts' gradients after every micro batch",
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
