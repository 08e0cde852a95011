"""The same experiment on any causal language model of transformers: a local folder, or one already downloaded.

    for event in run_real("path/or/hub-id", old, new, spec={"seed": 0}, steps=100, device="cuda"): ...

Weights are read from safetensors only, no code from the model's repository is run, nothing is downloaded unless the
Hub may be reached (HF_HUB_OFFLINE unset). Full fine-tuning keeps weights, gradients and AdamW's moments in float32:
16 bytes per parameter, one run at a time; LoRA's runs share the base. PEFT loads the adapters' names as they are.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loralens.core.errors import (
    DependencyMissing,
    DeviceUnavailable,
    HubUnavailable,
    InvalidInput,
    OutOfMemory,
    UnsupportedArchitecture,
)
from loralens.extras import how_to_install
from loralens.lab.forgetting.experiment import experiment
from loralens.lab.forgetting.job import about, describe, machine
from loralens.lab.forgetting.plan import BUDGETS, Arm, Design
from loralens.lab.forgetting.request import check_request
from loralens.lab.forgetting.source import ExperimentSource, make_texts
from loralens.lab.tiny.checkpoints import default_state_dir
from loralens.lab.tiny.corpus import Corpus

Event = dict[str, object]
MAX_STEPS = 100_000


class LogitsAlone(nn.Module):
    """A transformers model that answers logits alone, as the trainer and the evaluation want them."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, input_ids: Tensor) -> Tensor:
        logits: Tensor = self.inner(input_ids=input_ids, use_cache=False).logits
        return logits


def run_real(
    name: str,
    old: Corpus,
    new: Corpus,
    *,
    spec: Mapping[str, Any],
    steps: int = 100,
    device: str | None = None,
    state_dir: Path | None = None,
) -> Iterator[Event]:
    """All events of the experiment, as `job.run`; there is no time limit.

    Args: spec as `request.check_request` takes it (budget and texts are not used); steps of each main run.
    Raises: DependencyMissing, HubUnavailable, InvalidInput, UnsupportedArchitecture, DeviceUnavailable, OutOfMemory.
    """
    if not 4 <= steps <= MAX_STEPS:
        raise InvalidInput(f"steps must be from 4 to {MAX_STEPS:,}, got {steps}", field="steps")
    request = check_request({**spec, "budget": "full"})
    chosen = _device(device)
    started = time.monotonic()
    model, encode, config = load(name, chosen)
    linear = linear_names(model)
    plan = plan_for_real(request, linear, steps)
    source = ExperimentSource(
        base=model.requires_grad_(False),
        linear_names=linear,
        config=config,
        old=make_texts(old, encode, plan),
        new=make_texts(new, encode, plan),
        device=chosen,
    )
    folder = (state_dir or default_state_dir()) / "forgetting" / plan.digest(name, old.content_hash, new.content_hash)
    yield {
        "type": "plan",
        "budget": "model",
        "budget_seconds": None,
        "base_cached": True,
        "resumed": folder.is_dir() and any(folder.iterdir()),
        "arms": [describe(arm) for arm in plan.arms],
        "seeds": list(plan.seeds),
        "steps": plan.steps,
        "evaluation_steps": list(plan.evaluation_steps),
        "sweep": {family: list(plan.rates_of(family)) for family in plan.families()},
        "sweep_steps": plan.sweep_steps,
        "tokens_per_step": plan.batch_size * plan.sequence_length,
        "old": about(old),
        "new": about(new),
        "machine": machine(),
    }
    try:
        for event in experiment(source, plan, folder, math.inf):
            if event["type"] == "result":
                event |= {
                    "model": {"name": name, "parameters": sum(p.numel() for p in model.parameters()), "config": config},
                    "old": about(old),
                    "new": about(new),
                    "seconds": round(time.monotonic() - started, 1),
                    "budget_seconds": None,
                    "base_was_cached": True,
                    "machine": machine() | {"device": chosen},
                    "date": datetime.now(UTC).isoformat(timespec="seconds"),
                }
                shutil.rmtree(folder, ignore_errors=True)
            yield event
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            f"{chosen} ran out of memory", hint="full fine-tuning needs 16 bytes per parameter; try a smaller model"
        ) from error


def load(name: str, device: str) -> tuple[LogitsAlone, Any, dict[str, object]]:
    """The model in float32 on `device`, a function from text to token ids, and its config.json."""
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise DependencyMissing("this needs transformers", hint=how_to_install("trace")) from error
    options: dict[str, object] = {"trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        model = AutoModelForCausalLM.from_pretrained(name, use_safetensors=True, dtype=torch.float32, **options)
    except OSError as error:
        if Path(name).is_dir():
            raise InvalidInput(f"{name} contains no model that can be loaded: {_line(error)}", field="model") from error
        raise HubUnavailable(
            f"{name} is neither a folder nor a model that can be loaded: {_line(error)}",
            field="model",
            hint="give a folder with config.json, model.safetensors and the tokenizer's files",
        ) from error
    except ValueError as error:
        raise UnsupportedArchitecture(
            f"{name} is not a causal language model: {_line(error)}", field="model"
        ) from error

    def encode(text: str) -> Tensor:
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return torch.tensor(ids, dtype=torch.int64, device=device)

    return LogitsAlone(model.to(device).eval()), encode, dict(model.config.to_dict())


def linear_names(model: nn.Module) -> tuple[str, ...]:
    """Last names of the linear layers that are inside the repeated layers: what "all-linear" means, no head."""
    names = {
        path.rpartition(".")[2]
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and any(part.isdecimal() for part in path.split("."))
    }
    if not names:
        raise UnsupportedArchitecture("the model has no linear layers that LoRA could wrap", field="model")
    return tuple(sorted(names))


def plan_for_real(request: Mapping[str, Any], linear: tuple[str, ...], steps: int) -> Design:
    """Arms and rates for a pretrained model: gentler rates, no full-rank check, one run after another."""
    ranks = tuple(request["ranks"] or (4, 16))
    reference = min(ranks, key=lambda rank: abs(rank - 8))
    attention = tuple(n for n in linear if n in ("q_proj", "v_proj", "query", "value")) or linear[:1]
    loras = sorted(
        (
            Arm(f"lora-r{rank}", "lora" if rank == reference else f"lora-r{rank}", rank=rank, targets=linear)
            for rank in ranks
        ),
        key=lambda arm: arm.rank != reference,
    )
    marks = {max(1, round(steps * share)) for share in (0.03, 0.06, 0.12, 0.25, 0.5, 0.75, 1.0)}
    return replace(
        BUDGETS["full"],
        budget="model",
        seconds=math.inf,
        arms=(
            Arm("full", "full"),
            Arm("mixed", "full", mix=0.25),
            Arm("linear", "full", targets=linear),
            *loras,
            Arm(f"lora-r{reference}-qv", f"lora-r{reference}-qv", rank=reference, targets=attention),
        ),
        seeds=tuple(range(request["seed"], request["seed"] + (request["seeds"] or 3))),
        rates={"full": (1e-5, 3e-5, 1e-4), "lora": (1e-4, 3e-4, 1e-3)},
        sweep_steps=max(2, steps // 3),
        evaluation_steps=tuple(sorted(marks)),
        sequence_length=256,
        ranks=tuple(sorted({0, 1, 2, 4, 8, 16, 32, 64, 128, *ranks})),
        cost_steps=4,
        workers=1,
        resident=False,
    )


def _device(device: str | None) -> str:
    here = torch.cuda.is_available()
    if device is None:
        return "cuda" if here else "cpu"
    if device.startswith("cuda") and not here:
        raise DeviceUnavailable("this machine has no CUDA device", field="device", hint="--device cpu")
    if device != "cpu" and not device.startswith("cuda"):
        raise InvalidInput(f"device must be cpu or cuda, got {device[:40]!r}", field="device")
    return device


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
