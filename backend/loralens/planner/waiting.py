"""Seconds of a step on several GPUs, for comparing plans: computing, and what it waits for.

Assumptions, all said in the answer: 40 % of the dense peak (Llama 3's large runs report 0.38 to 0.43, arXiv:2407.21783,
table 4), because a time fitted on one card says nothing of a part of a model; links at 80 %
of what is stated (NCCL's ring on H100 NVLink: 365 to 370 of 450 GB/s, NVIDIA/nccl issue 1455); 400 Gb/s a GPU between
machines; copies and shards move behind computing, cuts by width and length do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loralens.core.errors import LoraLensError
from loralens.planner.meshes import group
from loralens.planner.network import compute_dtype, network_of
from loralens.planner.work import training_work

if TYPE_CHECKING:
    from loralens.core.answer.estimate import Estimate
    from loralens.core.catalogue import Gpu
    from loralens.planner.question import Question

ASSUMED_UTILIZATION: Final = 0.4
LINK_SHARE: Final = 0.8
BETWEEN_MACHINES: Final = 50e9  # bytes a second and GPU, one direction
PCI_EXPRESS: Final = {"3.0 x16": 16e9, "4.0 x16": 32e9, "5.0 x16": 64e9}  # one direction, as the standards state
HIDDEN: Final = ("dp_shard", "dp_replicate")
WIRE: Final = {"all_reduce": 2.0}  # a ring sends twice the tensor, all others once


def tokens_per_step(found: Estimate) -> int:
    """Of all GPUs together."""
    recipe, p = found.recipe, found.recipe.parallelism
    samples = recipe.micro_batch_size * recipe.gradient_accumulation_steps * (p.data_parallel // p.cp)
    return samples * recipe.sequence_length


def seconds_per_step(question: Question, found: Estimate, device: Gpu, nodes: int) -> float | None:
    """Computing with its idle stages, and the transfers that it waits for; None where a rate is not known."""
    rate = device.dense_flops_per_second.get(compute_dtype(found.recipe))
    if rate is None:
        return None
    try:
        work = training_work(network_of(question), gradient_checkpointing=found.recipe.gradient_checkpointing)
    except LoraLensError:
        return None
    p = found.recipe.parallelism
    idle = (p.pp - 1) / (p.virtual_stages * found.recipe.gradient_accumulation_steps)
    computing = work.total * tokens_per_step(found) / p.gpus / (rate * ASSUMED_UTILIZATION) * (1 + idle)
    hidden = waited = 0.0
    for row in found.communication:
        size, apart = group(p, row["over"])
        link = _link(device, size * apart > p.gpus // nodes)
        if link is None:
            return None
        moved = row["bytes"] * (WIRE.get(row["kind"], 1.0) * (size - 1) / size if row["over"] != "pp" else 1.0) / link
        if row["over"] in HIDDEN:
            hidden += moved
        else:
            waited += moved
    return computing + waited + max(0.0, hidden - computing)


def _link(device: Gpu, between: bool) -> float | None:
    if between:
        return BETWEEN_MACHINES * LINK_SHARE
    stated = device.interconnect.get("bytes_per_second_bidirectional")
    rate = stated / 2 if stated else PCI_EXPRESS.get(str(device.interconnect.get("pcie")))
    return None if rate is None else rate * LINK_SHARE
