"""The words of several GPUs, and what else does not go together with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

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
        kept=True,
    )
    offload_device: str = word(
        "cpu",
        Choice(OFFLOAD_DEVICES),
        "ZeRO-3: where what is offloaded waits; nvme: on a drive (ZeRO-Infinity).",
        kept=True,
    )
    param_buffer_count: int | None = word(
        None,
        Maybe(Whole(1, 10_000)),
        "Weights on NVMe: pinned buffers for them; none: 5.",
        needs=(NVME_WEIGHTS,),
        kept=True,
    )
    param_buffer_size: int | None = word(
        None,
        Maybe(Whole(1, 10**12)),
        "Weights on NVMe: elements of a buffer, which has to hold every weight's part; none: 1e8.",
        needs=(NVME_WEIGHTS,),
        kept=True,
    )
    max_in_cpu: int | None = word(
        None,
        Maybe(Whole(0, 10**12)),
        "Weights on NVMe: elements of trained ones that have a place in host memory all the same; none: 1e9.",
        needs=(NVME_WEIGHTS,),
        kept=True,
    )
    optimizer_buffer_count: int | None = word(
        None,
        Maybe(Whole(4, 10_000)),
        "States on NVMe: pinned buffers, each of a sub-group's size; none: 4, what Adam needs.",
        needs=(NVME,),
        kept=True,
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
        kept=True,
    )
    gather_dtype: str | None = word(
        None,
        Maybe(Choice(DTYPES)),
        "FSDP2's mixed precision: the dtype in which weights are gathered and used; none: their own.",
        needs=(FSDP2,),
        kept=True,
    )
    reduce_dtype: str | None = word(
        None,
        Maybe(Choice(DTYPES)),
        "FSDP2's mixed precision: the dtype in which gradients are reduced; none: that of the gathered weights.",
        needs=(FSDP2,),
        kept=True,
    )
    accumulate_unsynchronized: bool = word(
        False,
        Truth(),
        "FSDP2 keeps whole gradients until the last micro-batch, and reduces them once.",
        needs=(FSDP2, UNSYNCHRONIZED),
        kept=True,
    )
    bucket_view: bool = word(
        False,
        Truth(),
        "DDP's gradients lie in its buckets (gradient_as_bucket_view).",
        needs=(BUCKETS,),
        kept=True,
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
        None,
        Maybe(Whole(1, 10**12)),
        "ZeRO-3: elements that are updated at a time; none: 1e9.",
        needs=(ZERO3,),
        kept=True,
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
        kept=True,
    )
    cp: int = word(1, Whole(1, 65_536), "GPUs among which the sequence is cut (context parallel).")
    context: str = word(
        "ring",
        Choice(("ring", "ulysses")),
        "With cp: keys and values go around, or heads are traded for the sequence.",
        needs=(CONTEXT,),
        kept=True,
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
        "With pp: in what order micro-batches run; sequential: one after another, card by card (device_map).",
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
        kept=True,
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
        """Read the `parallelism` object, with or without a mesh (see `mesh`), each word by itself (together: `parallelism_rules`)."""
        given = spread(given) if isinstance(given, Mapping) else given
        found = Parallelism(**read_group(Parallelism, "parallelism", given))
        cut = found.model_parallel * found.cp
        if "gpus" not in (given or {}):
            found = replace(found, gpus=min(cut, 65_536))
        return found
