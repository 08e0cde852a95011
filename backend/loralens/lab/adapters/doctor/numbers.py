"""What the factors' numbers say: not finite, never trained, dead, exploding, and how much rank they use."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Final

import torch

from loralens.lab.adapters.adapter import FACTOR_DTYPES
from loralens.lab.adapters.begins import changed_base, way_out
from loralens.lab.adapters.doctor.finding import SHOWN_MODULES, Finding
from loralens.lab.adapters.doctor.patient import Pair, Patient
from loralens.lab.adapters.spectrum import ENERGY_SHARE, rank_for_energy, singular_values
from loralens.lab.adapters.stream import TensorFile
from loralens.lab.factors import Factors

EXPLODED_ENTRY: Final = 1.0
"""Root mean square of an update's entries above which it drowns its base (assumption: weights are of the order of
transformers' initializer_range, 0.02, and trained updates lie well below them)."""
OUTLIER: Final = 100.0
"""Times the median of the other modules (assumption)."""
NEAR_OVERFLOW: Final = 0.5 * 65504
"""Half of float16's largest number. Source: IEEE 754-2019, binary16."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """One module's factors, measured. `entry`: root mean square of the update's entries."""

    pair: Pair
    finite: bool
    a_is_zero: bool
    b_is_zero: bool
    largest: float
    entry: float
    rank: int


def measure(patient: Patient) -> list[Numbers]:
    """Each module's numbers; two tensors are in memory at a time."""
    if patient.file is None:
        return []
    readable = [p for p in patient.pairs.values() if patient.file.entries[p.lora_a].dtype in FACTOR_DTYPES]
    return [
        _measure(patient.file, pair) for pair in readable if patient.file.entries[pair.lora_b].dtype in FACTOR_DTYPES
    ]


def _measure(file: TensorFile, pair: Pair) -> Numbers:
    a, b = (file.read(name) for name in (pair.lora_a, pair.lora_b))
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        return Numbers(pair, False, False, False, 0.0, 0.0, pair.rank)
    largest = max(float(a.abs().max()), float(b.abs().max()))
    values = singular_values(Factors(pair.module, a, b, pair.scaling, pair.is_embedding, experts=pair.experts))
    entry = float(torch.linalg.vector_norm(values)) / (pair.experts * pair.in_features * pair.out_features) ** 0.5
    return Numbers(pair, True, not a.any(), not b.any(), largest, entry, rank_for_energy(values, ENERGY_SHARE))


def judge(patient: Patient, numbers: list[Numbers]) -> list[Finding]:
    """Findings about the numbers."""
    if not numbers:
        return []
    findings = [*_not_finite(numbers), *_untrained(numbers), *_exploding(patient, numbers)]
    if patient.checked is not None and (name := changed_base(patient.checked)):
        findings.append(
            Finding(
                "warning", "config", "changed_base", f"it began as {name}, which changed its base",
                "its factors are an update of a base that PEFT makes anew each time it loads them, not of the published one",
                f"serve it with PEFT alone; {way_out(name)}",
                source="huggingface/peft 0.21.2 tuners/lora/layer.py and peft_model.py, save_pretrained",
            )
        )  # fmt: skip
    return findings


def _not_finite(numbers: list[Numbers]) -> list[Finding]:
    bad = [one.pair.module for one in numbers if not one.finite]
    if not bad:
        return []
    return [
        Finding(
            "fault", "numbers", "not_finite", f"{len(bad)} of {len(numbers)} modules hold NaN or infinity",
            "training diverged, or numbers too large for float16 were saved in it",
            "take an earlier checkpoint; train with bfloat16, a smaller learning rate or gradient clipping",
            bad[:SHOWN_MODULES],
        )
    ]  # fmt: skip


def _untrained(numbers: list[Numbers]) -> list[Finding]:
    dead = [one for one in numbers if one.finite and (one.a_is_zero or one.b_is_zero)]
    if not dead:
        return []
    modules = [one.pair.module for one in dead]
    if len(dead) == len(numbers):
        return [
            Finding(
                "fault", "numbers", "untrained", "every module's update is zero: the adapter changes nothing",
                "lora_B is zero, as it begins: saved before the first step, no gradient reached it, or the gathered "
                "weights of a sharded run (ZeRO-3, FSDP) were empty",
                "save after training from every rank's gathered state dict; check that requires_grad is on and the loss moves",
                modules[:SHOWN_MODULES],
                "huggingface/peft 0.21.2 tuners/lora/layer.py, reset_lora_parameters",
            )
        ]  # fmt: skip
    both = sum(one.a_is_zero and one.b_is_zero for one in dead)
    return [
        Finding(
            "warning", "numbers", "dead", f"{len(dead)} of {len(numbers)} modules have an update of zero",
            "no gradient reached them: frozen, or not used in the forward passes of training (a tower without pictures, "
            "experts that no token met, layers after a detached tensor)"
            + (f"; in {both} both factors are zero, which no training moves" if both else ""),
            "leave them out of target_modules, or find out why they got no gradient",
            modules[:SHOWN_MODULES],
        )
    ]  # fmt: skip


def _exploding(patient: Patient, numbers: list[Numbers]) -> list[Finding]:
    alive = [one for one in numbers if one.finite and one.entry > 0]
    if not alive:
        return []
    huge = [one for one in alive if one.entry > EXPLODED_ENTRY]
    if len(huge) * 2 > len(alive):
        scaling = max(one.pair.scaling for one in huge)
        return [
            Finding(
                "fault", "numbers", "exploding",
                f"the update's entries are {max(one.entry for one in huge):.3g} in root mean square, some "
                f"{max(one.entry for one in huge) / 0.02:,.0f} times what weights usually are",
                f"its scaling (alpha / rank) is {scaling:g}" if scaling > 16 else "training diverged",
                "set lora_alpha to what it was trained with" if scaling > 16 else "take an earlier checkpoint, train with a smaller learning rate",
                [one.pair.module for one in huge[:SHOWN_MODULES]],
            )
        ]  # fmt: skip
    usual = statistics.median(one.entry for one in alive)
    far = [one for one in alive if one.entry > EXPLODED_ENTRY or (len(alive) > 2 and one.entry > OUTLIER * usual)]
    if far:
        return [
            Finding(
                "fault", "numbers", "exploding",
                f"{len(far)} of {len(numbers)} modules have an update {max(o.entry for o in far) / usual:,.0f} times the median",
                "training diverged there, or the file is damaged",
                "take an earlier checkpoint; compare the file's checksum with its source",
                [one.pair.module for one in far[:SHOWN_MODULES]],
            )
        ]  # fmt: skip
    file = patient.file
    near = [
        one.pair.module
        for one in alive
        if one.largest > NEAR_OVERFLOW and file is not None and file.entries[one.pair.lora_a].dtype != "F16"
    ]
    if near:
        return [
            Finding(
                "warning", "numbers", "near_overflow", f"{len(near)} modules hold numbers near float16's largest, 65504",
                "an engine that casts them to float16 makes infinities of them",
                "serve it in bfloat16 or float32", near[:SHOWN_MODULES],
            )
        ]  # fmt: skip
    return []
