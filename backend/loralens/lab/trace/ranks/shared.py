"""What each library does to a model so that several GPUs share it, done to the one on the fake GPU.

Units of FSDP2 as the recipe names them: each layer; `layers+ends`: the embedding, and norm with head, apart (accelerate 1.15
`fsdp2_prepare_model`, transformers 5.23 distributed/fsdp.py, torchtitan). Experts and matrices are divided by transformers'
own plans (distributed/expert_parallel.py, tensor_parallel.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard

from loralens.core.question.parallelism import Parallelism
from loralens.lab.trace.build import DTYPES
from loralens.lab.trace.families import layer_list


@dataclass(frozen=True, slots=True)
class Meshes:
    """The ranks as dense layers see them, and as experts do."""

    dense: DeviceMesh
    expert: DeviceMesh | None

    @staticmethod
    def of(p: Parallelism) -> Meshes:
        """Must be made outside of a fake mode: a mesh reads its ranks."""
        dense = init_device_mesh(
            "cuda", (p.dp_replicate, p.sharding, p.tp), mesh_dim_names=("replicate", "shard", "tp")
        )
        if p.ep == 1:
            return Meshes(dense, None)
        sizes = (p.dp_replicate, p.expert_sharding, p.ep)
        return Meshes(dense, init_device_mesh("cuda", sizes, mesh_dim_names=("replicate", "shard", "ep")))


def share_out(model: Any, p: Parallelism, meshes: Meshes) -> torch.nn.Module:
    """Divide, then shard; the model's modules keep their names."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if p.tp > 1 or p.ep > 1:
        _divide(base, p, meshes)
    if p.strategy == "fsdp2":
        _shard(model, base, p, meshes)
    return model


def _divide(base: Any, p: Parallelism, meshes: Meshes) -> None:
    from transformers.distributed.configuration_utils import DistributedConfig
    from transformers.distributed.expert_parallel import apply_expert_parallelism
    from transformers.distributed.tensor_parallel import apply_tensor_parallelism

    sizes = {"fsdp_size": p.sharding, "dp_replicate_size": p.dp_replicate, "tp_size": p.tp, "ep_size": p.ep}
    widths, experts, _ = base._resolve_parallel_plans(DistributedConfig(**sizes))
    if p.tp > 1:
        apply_tensor_parallelism(base, meshes.dense["tp"], widths)
    if meshes.expert is not None:
        apply_expert_parallelism(base, meshes.expert["ep"], meshes.dense["tp"], experts)


def _shard(model: torch.nn.Module, base: Any, p: Parallelism, meshes: Meshes) -> None:
    offload = CPUOffloadPolicy(pin_memory=False) if p.offload == "parameters" else OffloadPolicy()
    policy = MixedPrecisionPolicy(
        param_dtype=None if p.gather_dtype is None else DTYPES[p.gather_dtype],
        reduce_dtype=None if p.reduce_dtype is None else DTYPES[p.reduce_dtype],
    )
    words: dict[str, Any] = {"mp_policy": policy, "offload_policy": offload}

    def unit(what: Any, keep: bool = False, of: DeviceMesh = meshes.dense) -> None:
        mesh = of["replicate", "shard"] if p.dp_replicate > 1 else of["shard"]
        reshard = False if keep else p.reshard_after_forward
        fully_shard(what, mesh=mesh, reshard_after_forward=reshard, **words)

    if meshes.expert is not None:
        for module in [module for name, module in base.named_modules() if name.endswith(".experts")]:
            unit(module, of=meshes.expert)
            module.set_gradient_divide_factor(float(p.dp_replicate * p.sharding))
            if p.expert_sharding > 1:
                module.set_force_sum_reduction_for_comms(True)
    if p.units == "layers+ends":
        _ends(base, unit)
    else:
        for layer in layer_list(base)[1]:
            unit(layer)
    mesh = meshes.dense["replicate", "shard"] if p.dp_replicate > 1 else meshes.dense["shard"]
    fully_shard(model, mesh=mesh, **words)


def _ends(base: Any, unit: Any) -> None:
    embedding, head = base.get_input_embeddings(), base.get_output_embeddings()
    norm = base.base_model.norm
    tied = embedding.weight is head.weight
    if not tied:
        unit(embedding)
    for layer in layer_list(base)[1]:
        unit(layer)
    unit([norm, embedding, head] if tied else [norm, head], keep=True)
