"""Published peaks of FSDP2 runs that accumulate without reduction: whole float32 gradients are half of what a GPU holds there.

Source: KempnerInstitute/KempnerForge, commit 5666d0d161, benchmarks/mfu_scaling/mfu_scaling.md (peak allocated, H200): Llama-3
8B's widths, bfloat16 weights, policy (bfloat16, float32), full checkpointing, 4 x 4096 tokens; training/grad.py switches
the reduction off between steps, training/loss.py computes the loss in 16 bits. The figure for two GPUs contradicts its
neighbours (twice the shards of four GPUs, and hardly more memory) and is left out.
"""

from __future__ import annotations

import pytest

from loralens.core.answer.estimate import estimate

RUN = {
    "strategy": "fsdp2", "units": "layers", "weights_dtype": "bfloat16", "autocast": None, "gather_dtype": "bfloat16",
    "reduce_dtype": "float32", "accumulate_unsynchronized": True, "gradient_checkpointing": True, "loss": "kernel",
    "micro_batch_size": 4, "sequence_length": 4096,
}  # fmt: skip


@pytest.mark.parametrize(("gpus", "accumulation", "gib"), [(4, 2, 61.1), (32, 4, 51.3)])
def test_whole_gradients_that_wait_are_there(gpus, accumulation, gib):
    found = estimate("llama-3-8b", "full", gpus=gpus, gradient_accumulation_steps=accumulation, **RUN)
    assert found.allocated_bytes / 2**30 == pytest.approx(gib, rel=0.03)
    assert found.breakdown["gradients_bytes"] > 28 * 2**30
