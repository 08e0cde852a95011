"""What one step costs, measured: peak memory, gradients, optimizer state and time, beside the calculator's prediction.

On the CPU the peak is read off PyTorch's own allocator events (torch.profiler with memory) during one warm step: what
is held before the step begins, plus the largest sum of what the step has allocated and not yet freed. On a GPU it is
torch.cuda.max_memory_allocated. Gradients and optimizer state are the sums of the tensors that are really there.

The prediction is `loralens.estimate` for the same sizes and, as here, without gradient checkpointing. It models PyTorch on a
GPU with transformers' own loss; the measured CPU step keeps nearly the same (within 0.1% in the recorded runs). Both are
shown, neither is adjusted.
"""

from __future__ import annotations

import os
import statistics
import time
import warnings
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler announces itself on stderr otherwise

import torch
from torch import Tensor

from loralens.core.errors import LoraLensError
from loralens.lab.forgetting.plan import Arm, Design
from loralens.lab.forgetting.shapes import ArmCost, NoPrediction, PredictedCost, TimedSteps
from loralens.lab.forgetting.source import ExperimentSource
from loralens.lab.tiny.train import Trainer, language_loss

WARMUP_STEPS = 3


def measure_cost(source: ExperimentSource, arm: Arm, plan: Design) -> ArmCost:
    """Bytes and seconds of one steady-state training step of `arm`, measured and predicted."""
    trainer = source.trainer(arm, learning_rate=1e-4, seed=plan.sweep_seed, plan=plan)
    for _ in range(WARMUP_STEPS):
        trainer.advance()
    wall: list[float] = []
    processor: list[float] = []
    for _ in range(plan.cost_steps):
        started = time.thread_time()
        wall.append(trainer.advance().seconds)
        processor.append(time.thread_time() - started)
    weights = tensor_bytes([p for n, p in trainer.model.named_parameters() if ".lora_" not in n])
    adapter = tensor_bytes([p for n, p in trainer.model.named_parameters() if ".lora_" in n])
    return {
        "arm": arm.id,
        "trainable_parameters": sum(p.numel() for p in trainer.parameters.values()),
        "total_parameters": sum(p.numel() for p in trainer.model.parameters()),
        "measured": {
            "weights_bytes": weights,
            "adapter_bytes": adapter,
            "gradients_bytes": gradient_bytes(trainer),
            "optimizer_state_bytes": optimizer_bytes(trainer),
            "peak_bytes": peak_bytes(trainer),
            "step_seconds": _samples(wall),
            # What other programs do on the machine does not enter here; None where a GPU or more threads do the work.
            "step_processor_seconds": _samples(processor) if plan.resident else None,
        },
        "predicted": predict(source, arm, plan),
    }


def _samples(values: list[float]) -> TimedSteps:
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "samples": len(values)}


def tensor_bytes(tensors: list[Tensor]) -> int:
    """Bytes of the tensors' storages, shared ones once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def optimizer_bytes(trainer: Trainer) -> int:
    """Bytes of every tensor in the optimizer's state."""
    return tensor_bytes([v for state in trainer.optimizer.state.values() for v in state.values()])


def gradient_bytes(trainer: Trainer) -> int:
    """Bytes of the gradients after one backward pass; they are dropped again."""
    torch.autograd.backward(language_loss(trainer.model, trainer.batch()))
    total = tensor_bytes([p.grad for p in trainer.parameters.values() if p.grad is not None])
    trainer.optimizer.zero_grad(set_to_none=True)
    return total


def peak_bytes(trainer: Trainer) -> int:
    """Largest number of bytes that tensors hold at once during one step, weights and optimizer state included."""
    device = next(trainer.model.parameters()).device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        trainer.advance()
        return int(torch.cuda.max_memory_allocated(device))
    held = tensor_bytes(list(trainer.model.parameters())) + optimizer_bytes(trainer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the profiler warns about collecting without a GPU
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            trainer.advance()
        results: Any = profile.profiler
        events = [e for e in results.kineto_results.events() if e.name() == "[memory]"]
    live = top = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        top = max(top, live)
    return held + top


def predict(source: ExperimentSource, arm: Arm, plan: Design) -> PredictedCost | NoPrediction | None:
    """The calculator's figures for this arm; None where only some of the base's own weights train."""
    if arm.train_rest or (arm.targets is not None and arm.rank is None):
        return None
    recipe: dict[str, object] = {
        "micro_batch_size": plan.batch_size,
        "sequence_length": plan.sequence_length,
        "weights_dtype": "float32",
        "autocast": None,
        "optimizer": "adamw_fused",
        "gradient_checkpointing": False,
    }
    if arm.rank is not None:
        recipe["lora"] = {
            "rank": arm.rank,
            "alpha": 2 * arm.rank,
            "target_modules": list(arm.targets or source.linear_names),
            "adapter_dtype": "float32",
        }
    from loralens import estimate

    try:
        answer = estimate(dict(source.config), method=arm.method, **recipe).to_dict()
    except LoraLensError as error:
        return {"error": error.message}
    return {
        "trainable_parameters": answer["parameters"]["trainable"],
        "optimizer_state_bytes": answer["breakdown"]["optimizer_state_bytes"],
        "peak_bytes": answer["peak"]["allocated_bytes"],
        "basis": answer["basis"],
    }
