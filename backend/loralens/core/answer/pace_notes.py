"""What a step's time rests on, in sentences: rates, links, and how the step is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loralens.core.partition.rank import is_cut
from loralens.core.question.packings import BY_GROUPS
from loralens.core.question.versions import framework
from loralens.core.time.links import MACHINE, MEASURED, NVLINK_HIDES, link_of, network_of, route
from loralens.core.time.rates import CLASS, Share, bandwidth_of, known

if TYPE_CHECKING:
    from loralens.core.catalogue import Gpu
    from loralens.core.question.recipe import Recipe

GUESSED: Final = ("gpipe", "sequential", "zero_bubble", "zero_bubble_v")
"""Schedules without a published run; of interleaved stages a ratio to 1F1B is published, and met."""
DIMENSIONS: Final = ("tp", "cp", "ep", "dp_shard", "dp_replicate", "pp")


def notes_of(share: Share, recipe: Recipe, gpu: Gpu, *, ranged: bool) -> list[str]:
    """Sentences on a step's time. `ranged`: the processor decides."""
    said = [
        "the time adds up the step's operations at rates fitted on published runs; four of five such runs lie within its band "
        "(docs/accuracy-time.md)"
    ]
    if share.basis == CLASS:
        said.append(
            f"no published run on {gpu.name} is known: large products are taken to reach {share.value:.0%} of its peak, as a guess "
            f"by its class ({share.source})"
        )
    if gpu.memory_bandwidth_bytes_per_second is None:
        bandwidth = bandwidth_of(gpu, recipe.autocast or recipe.weights_dtype) or 0
        said.append(
            f"the bandwidth of {gpu.name} is not known: {bandwidth / 1e9:,.0f} GB/s are assumed, as cards of its rate have"
        )
    if ranged:
        said.append(
            "so short a step, or so few sequences at once, wait for the processor, whose speed is not known: the range goes from the quickest to the slowest "
            "machine with published runs"
        )
    said += _of_links(recipe, gpu) if recipe.parallelism.gpus > 1 else []
    said += _of_cut(recipe) if is_cut(recipe) else []
    if recipe.quantization is not None and recipe.quantization.type in BY_GROUPS:
        said.append(
            "GPTQ weights are unpacked by torch operations; with a Triton kernel that takes a third of the time"
        )
    return said


def _of_links(recipe: Recipe, gpu: Gpu) -> list[str]:
    """At what rates GPUs talk, inside a machine and between machines."""
    p, k = recipe.parallelism, known().constants
    rate, hides = link_of(gpu, k)
    over = (
        "over NVLink, as published runs reach"
        if hides == NVLINK_HIDES
        else "over PCIe; published machines differ threefold"
    )
    if MEASURED in gpu.interconnect:
        over = "as given or measured for this machine"
    said = [f"{rate / 1e9:.3g} GB/s between two cards of a machine, {over}"]
    if any(route(p, dimension).leaves for dimension in DIMENSIONS):
        machine = p.machine_gpus or MACHINE
        said.append(
            f"machines of {machine} GPUs (machine_gpus), each GPU with a network card that reaches {network_of(gpu, k) / 1e9:.0f} GB/s: "
            "what its vendor's machines have (assumption)"
        )
    return said


def _of_cut(recipe: Recipe) -> list[str]:
    """How a part of a model, or of a sequence, is waited for."""
    p, said = recipe.parallelism, []
    if p.tp > 1:
        plain = recipe.compile or framework(recipe) == "megatron"
        eager = "" if plain else "; without compile the processor dispatches every cut matrix through DTensor"
        said.append(f"tensor parallel: every sum and gather inside a layer is waited for{eager}")
    if p.cp > 1:
        way = "is waited for" if p.context == "ulysses" else "hides behind attention as far as that takes as long"
        said.append(
            f"context parallel: what passes between the parts {way}; all parts are taken to be equally much work"
        )
    if p.ep > 1:
        said.append(
            "expert parallel: rows are waited for on their way, and every GPU is sent equally many (assumption)"
        )
    if p.pp > 1:
        said.append(
            f"the slowest of {p.pp} stages sets the pace, and waits while the others fill and drain ({p.schedule})"
        )
    if without := unmeasured(recipe):
        said.append(
            f"few published speeds or none with {', '.join(without)} could be computed: the band is wider, as a guess"
        )
    return said


def unmeasured(recipe: Recipe) -> list[str]:
    """Ways to cut a step of which no published speed is known that could be computed, by their words."""
    p = recipe.parallelism
    own = p.tp if framework(recipe) == "megatron" else 1  # of Megatron's own layers
    found = [f"{name}={size}" for name, size in (("tp", own), ("cp", p.cp), ("ep", p.ep)) if size > 1]
    return [*found, f"schedule={p.schedule}"] if p.pp > 1 and p.schedule in GUESSED else found
