"""What is run: arms, learning rates, seeds and sizes, fixed before anything starts.

An arm is one way to adapt the base to the new text:

    full              all weights are trained
    mixed             all weights are trained, a quarter of each batch is old text (rehearsal)
    linear            only the weights LoRA could reach train, in full: separates low rank from frozen embeddings
    lora-r8           LoRA of rank 8 on every linear layer
    lora-r8-qv        LoRA of rank 8 on q_proj and v_proj
    lora-full-rank    LoRA of the largest rank, embeddings and norms trained beside it: must come close to `full`

A comparison at one learning rate is unfair: LoRA's best rate is several times that of full fine-tuning. So each family
(the arms that train weights in full together, each LoRA arm by itself) first sweeps its rates with another seed, and
the rate with the lowest *validation* loss on the new text is used; test text is used for the figures only.

Source: Biderman et al. 2024, "LoRA Learns Less and Forgets Less", arXiv:2405.09673, section 5 (sensitivity to rates).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from loralens.lab.forgetting.request import check_request
from loralens.lab.tiny.checkpoints import PRESETS, BasePreset
from loralens.lab.tiny.model import LINEAR_NAMES

FORMAT = 1
QV = ("q_proj", "v_proj")


@dataclass(frozen=True)
class Arm:
    """One way to adapt; `rank` None trains the weights themselves, `targets` None all of them."""

    id: str
    family: str
    rank: int | None = None
    targets: tuple[str, ...] | None = None
    train_rest: bool = False
    mix: float = 0.0

    @property
    def method(self) -> str:
        """Full or lora."""
        return "full" if self.rank is None else "lora"


@dataclass(frozen=True)
class Design:
    """All that decides the curves, plus the announced time."""

    budget: str
    seconds: float
    preset: BasePreset
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    rates: Mapping[str, tuple[float, ...]]
    sweep_steps: int
    evaluation_steps: tuple[int, ...]
    batch_size: int
    sequence_length: int
    windows: int
    ranks: tuple[int, ...]
    cost_steps: int = 8
    workers: int = 2
    resident: bool = True
    """Keep every run in memory and let their curves grow together; else one run after another."""

    @property
    def steps(self) -> int:
        """Optimizer steps of each main run."""
        return self.evaluation_steps[-1]

    @property
    def sweep_seed(self) -> int:
        """Seed of the sweep: none of the seeds that the figures are made with."""
        return max(self.seeds) + 1

    def rates_of(self, family: str) -> tuple[float, ...]:
        """Learning rates to try for a family; LoRA's families that are not named have those of `lora`."""
        return self.rates[family] if family in self.rates else self.rates["lora"]

    def families(self) -> dict[str, Arm]:
        """The arm that stands for each family in the sweep: its first."""
        first: dict[str, Arm] = {}
        for arm in self.arms:
            first.setdefault(arm.family, arm)
        return first

    def digest(self, *texts: str) -> str:
        """Name of this experiment on these texts: everything that the curves depend on."""
        parts = asdict(self)
        for name in ("seconds", "workers", "resident", "cost_steps"):
            del parts[name]
        return hashlib.sha256(json.dumps([FORMAT, parts, texts], sort_keys=True).encode()).hexdigest()[:16]


def make_arms(ranks: tuple[int, ...], reference: int, full_rank: int) -> tuple[Arm, ...]:
    """The arms of a budget: LoRA at each rank on all linear layers, and at the reference rank on q and v alone."""
    # Each has rates of its own: at one rate for all, rank 64 of the larger model diverged where rank 16 was best.
    loras = [
        Arm(f"lora-r{rank}", "lora" if rank == reference else f"lora-r{rank}", rank=rank, targets=LINEAR_NAMES)
        for rank in sorted(ranks, key=lambda rank: rank != reference)
    ]
    return (
        Arm("full", "full"),
        Arm("mixed", "full", mix=0.25),
        Arm("linear", "full", targets=LINEAR_NAMES),
        *loras,
        Arm(f"lora-r{reference}-qv", f"lora-r{reference}-qv", rank=reference, targets=QV),
        Arm("lora-full-rank", "full_rank", rank=full_rank, targets=LINEAR_NAMES, train_rest=True),
    )


def _budgets() -> dict[str, Design]:
    quick, full = PRESETS["quick"], PRESETS["full"]
    return {
        "quick": Design(
            budget="quick",
            seconds=60,
            preset=quick,
            arms=make_arms((1, 8), 8, quick.config.hidden_size),
            seeds=(0, 1, 2),
            rates={
                "full": (1e-3, 3e-3, 1e-2),
                "lora": (3e-3, 1e-2, 3e-2),
                "lora-r1": (1e-2, 3e-2),
                "lora-r8-qv": (1e-2, 3e-2),
                "full_rank": (1e-3, 3e-3),
            },
            sweep_steps=24,
            evaluation_steps=(4, 8, 16, 24, 32, 40),
            batch_size=8,
            sequence_length=64,
            windows=24,
            ranks=(0, 1, 2, 4, 8, 16, 32, 64, 96),
        ),
        "full": Design(
            budget="full",
            seconds=600,
            preset=full,
            arms=make_arms((1, 4, 16, 64), 16, full.config.hidden_size),
            seeds=(0, 1, 2),
            rates={
                "full": (3e-4, 1e-3, 3e-3, 1e-2),
                "lora": (1e-3, 3e-3, 1e-2, 3e-2),
                "full_rank": (3e-4, 1e-3, 3e-3),
            },
            sweep_steps=48,
            evaluation_steps=(4, 8, 16, 24, 32, 48, 72, 96, 128),
            batch_size=8,
            sequence_length=64,
            windows=32,
            ranks=(0, 1, 2, 4, 8, 16, 32, 64, 128, 192),
        ),
    }


BUDGETS = _budgets()


def plan_from_spec(spec: Mapping[str, Any]) -> Design:
    """The plan of a request; see `request.check_request` for its fields and errors."""
    request = check_request(spec)
    plan = BUDGETS[request["budget"]]
    plan = replace(plan, seeds=tuple(range(request["seed"], request["seed"] + (request["seeds"] or len(plan.seeds)))))
    if request["ranks"]:
        ranks = tuple(request["ranks"])
        reference = min(ranks, key=lambda rank: abs(rank - 8))
        plan = replace(
            plan,
            arms=make_arms(ranks, reference, plan.preset.config.hidden_size),
            ranks=tuple(sorted({*plan.ranks, *ranks})),
        )
    return plan
