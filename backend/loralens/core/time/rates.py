"""How fast a card works: a few constants with a physical meaning, and a share of the vendor's peak for each card.

Source: `rates.json`, whose values are fitted on published runs (`docs/accuracy-time.md` says how well they predict others);
where a card has no runs, its share is guessed by its class, which is an assumption.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from loralens.core.catalogue import Gpu

DATA: Final = Path(__file__).parent / "rates.json"
NO_FLASH: Final = ("Turing", "Volta", "Pascal")
"""PyTorch's flash kernel needs an Ampere card or a later one; others take the memory-efficient kernel.
Source: torch 2.13 aten/src/ATen/native/transformers/cuda/sdp_utils.cpp, `check_flash_attention_hardware_support`."""
AMPERES_FLASH: Final = ("Ampere", "Ada")
"""FlashAttention 2 was written for these; later cards run it at a smaller share of their rate (35% of an H100's peak).
Source: Shah et al. 2024, arXiv:2407.08608, section 1."""
OPERATIONS_PER_BYTE: Final = 160
"""Of a card whose bandwidth is not known: A100 153, RTX 4090 164, T4 203 by their data sheets. An assumption."""
FITTED, CLASS = "fitted", "class"


@dataclass(frozen=True, slots=True)
class Constants:
    """What holds for every card. Times in seconds; see `rates.json` for the meaning of each."""

    bandwidth_share: float
    flash: float
    flash_hopper: float
    flash_1: float
    flash_1_hopper: float
    efficient: float
    efficient_float32: float
    nf4: float
    gptq: float
    gptq_triton: float
    kernel_seconds: float
    micro_step_seconds: float
    step_seconds: float
    zero3_hook_seconds: float
    sharded_share: float
    sharded_step_seconds: float
    sharded_unit_seconds: float
    cut_matrix_seconds: float
    overlap: float
    network_overlap: float
    nvlink_share: float
    pcie_bytes_per_second: float
    geforce_bytes_per_second: float
    network_share: float
    call_seconds: float
    host_bytes_per_second: float


@dataclass(frozen=True, slots=True)
class Band:
    """Factors on the expected time, between which four runs of five lie, and how they were found."""

    low: float
    high: float
    source: str


@dataclass(frozen=True, slots=True)
class Share:
    """Part of the dense peak that large products reach; `basis`: fitted or class."""

    value: float
    basis: str
    source: str


@dataclass(frozen=True, slots=True)
class Speed:
    """One card's rates: operations, weights unpacked or bytes a second."""

    flops: Mapping[str, float]  # by the rate's name in `tape.cost`
    bytes_per_second: float

    def seconds(self, rate: str, flops: float, moved: float) -> float:
        """A kernel's time: its operations and its bytes, one after the other."""
        speed = self.flops.get(rate)
        return (flops / speed if speed else 0.0) + moved / self.bytes_per_second


def speed(
    half: float, float32: float, bandwidth: float, share: float, constants: Constants, architecture: str = "Ampere"
) -> Speed:
    """Rates of a card.

    Args:
        half: dense peak of products in the compute dtype, operations a second.
        float32: dense peak of products in float32.
        bandwidth: of the card's memory, bytes a second.
        share: part of `half` that large products reach.
        constants: see `Constants`.
        architecture: of the card, which decides over its attention kernels.
    """
    matrix, moved = half * share, bandwidth * constants.bandwidth_share
    flash = constants.flash if architecture in AMPERES_FLASH else constants.flash_hopper
    return Speed(
        {
            "half": matrix,
            "float32": float32,
            "flash": matrix * (constants.efficient if architecture in NO_FLASH else flash),
            "flash_1": matrix * constants.flash_1,
            "flash_1_hopper": matrix * constants.flash_1_hopper,
            "efficient": matrix * constants.efficient,
            "efficient_float32": float32 * constants.efficient_float32,
            "nf4": bandwidth / constants.nf4,
            "gptq": bandwidth / constants.gptq,
            "gptq_triton": bandwidth / constants.gptq_triton,
        },
        moved,
    )


def speed_of(gpu: Gpu, dtype: str, constants: Constants | None = None, share: float | None = None) -> Speed | None:
    """A card's rates for products in `dtype`; None where its peak is not known."""
    half, bandwidth = gpu.dense_flops_per_second.get(dtype), bandwidth_of(gpu, dtype)
    if not half or not bandwidth:
        return None
    float32 = gpu.dense_flops_per_second.get("float32") or half
    return speed(
        half,
        float32,
        bandwidth,
        share_of(gpu).value if share is None else share,
        constants or known().constants,
        gpu.architecture,
    )


def bandwidth_of(gpu: Gpu, dtype: str) -> float | None:
    """Of the card's memory; for a card of which only a rate is known, as much as cards of that rate usually have."""
    known_bandwidth = gpu.memory_bandwidth_bytes_per_second
    half = gpu.dense_flops_per_second.get(dtype)
    return known_bandwidth or (half / OPERATIONS_PER_BYTE if half else None)


@dataclass(frozen=True, slots=True)
class GenerationRates:
    """What generating takes beside a card's own rates; see `rates.json` for the meaning of each."""

    engine_kernel_seconds: float
    cache_passes: float
    cache_passes_per_query: float
    bands: Mapping[str, Band]  # by engine


@dataclass(frozen=True, slots=True)
class Rates:
    """The whole file."""

    constants: Constants
    shares: Mapping[str, Share]
    classes: tuple[tuple[frozenset[str], Share], ...]
    other: Share
    bands: Mapping[str, Band]
    generation: GenerationRates
    host: tuple[float, float]  # how much quicker and slower published hosts' processors launch kernels


@cache
def known() -> Rates:
    """What `rates.json` says."""
    return read(json.loads(DATA.read_text(encoding="utf-8")))


def read(data: Mapping[str, Any]) -> Rates:
    """Rates from the file's JSON."""
    return Rates(
        Constants(**{name: row["value"] for name, row in data["constants"].items()}),
        {name: Share(row["value"], FITTED, row["source"]) for name, row in data["shares"].items()},
        tuple((frozenset(row["ids"]), Share(row["value"], CLASS, row["class"])) for row in data["classes"]),
        Share(data["other"]["value"], CLASS, data["other"]["class"]),
        {name: Band(**row) for name, row in data["bands"].items()},
        GenerationRates(
            **{name: row["value"] for name, row in data["generation"]["constants"].items()},
            bands={name: Band(**row) for name, row in data["generation"]["bands"].items()},
        ),
        tuple(data["host"]["range"]),
    )


def share_of(gpu: Gpu, *, fitted: bool = True) -> Share:
    """A card's share of its peak: fitted on its runs, or guessed by its class (always, where not `fitted`)."""
    rates = known()
    if fitted and gpu.id in rates.shares:
        return rates.shares[gpu.id]
    return next((share for ids, share in rates.classes if gpu.id in ids), rates.other)
