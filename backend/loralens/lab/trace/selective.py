"""Selective checkpointing by operator, as torchtitan has torch do it."""

from __future__ import annotations

from typing import Any

import torch
from torch._functorch.partitioners import get_default_op_list
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts


def selective() -> Any:
    """The contexts of one checkpointed layer: what is expensive to make is saved, but for every second matrix product.

    Source: pytorch/torchtitan b5bcd76c distributed/activation_checkpoint.py, `SelectiveAC`, without its exception for a
    mixture's router.
    """
    collectives = torch.ops._c10d_functional
    expensive: Any = get_default_op_list().compute_intensive_ops
    saved = {operator.default for operator in expensive}
    saved |= {torch.ops.aten.topk.default, collectives.reduce_scatter_tensor.default}
    saved.add(collectives.all_to_all_single.default)
    products = {False: 0, True: 0}

    def policy(context: Any, operator: Any, *_: Any, **__: Any) -> CheckpointPolicy:
        if operator == torch.ops.aten.mm.default:
            products[context.is_recompute] += 1
            if products[context.is_recompute] % 2 == 0:
                return CheckpointPolicy.PREFER_RECOMPUTE
        return CheckpointPolicy.MUST_SAVE if operator in saved else CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(policy)
