"""Between which GPUs a collective goes, and how fast: inside a machine over its links, between machines over network cards.

The dimensions of a mesh lie inside each other, tp innermost and pp outermost, as torch's `init_device_mesh` and Megatron
number ranks. Every GPU has a network card of its own, and a ring between machines uses those of all its members in a
machine: so a group that fills machines is as fast there as inside, and one with a member in each is not.

Sources: NCCL's tests, doc/PERFORMANCE.md (bytes on the wire of each collective); NVIDIA's DGX data sheets for the network
cards of one GPU (A100: 200 Gb/s, H100 to B200: 400 Gb/s, B300: 800 Gb/s).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from loralens.core.time.rates import Constants

if TYPE_CHECKING:
    from loralens.core.catalogue import Gpu
    from loralens.core.question.parallelism import Parallelism

MACHINE: Final = 8
"""GPUs of one machine where it is not said: assumed."""
NVLINK_HIDES: Final = 0.95
"""Share of compute behind which transfers over NVLink hide; an assumption: on published runs they hide whole."""
NETWORK: Final = {"Volta": 12.5e9, "Ampere": 25e9, "Hopper": 50e9, "Blackwell": 50e9, "Blackwell Ultra": 100e9}
"""Bytes a second and GPU between machines, one direction; see the module's sources."""
OTHER_NETWORK: Final = 25e9
"""Of another card: an assumption."""
SENT_TWICE: Final = ("all_reduce",)
POINT_TO_POINT: Final = ("send", "receive")


class Route(NamedTuple):
    """How a collective goes. `members`: GPUs that take part; `inside`: of them in one machine."""

    members: int
    inside: int

    @property
    def leaves(self) -> bool:
        """Does it go between machines?"""
        return self.members > self.inside

    def wire(self, kind: str, size: float) -> float:
        """Bytes that a GPU sends for a tensor of so many: over its link, or where it leaves, over its network card."""
        if kind in POINT_TO_POINT:
            return size
        if self.leaves and kind == "all_to_all":
            return size * (self.members - self.inside) / self.members
        return size * (2 if kind in SENT_TWICE else 1) * (self.members - 1) / self.members


def group(p: Parallelism, over: str) -> tuple[int, int]:
    """GPUs that take part in a collective over a dimension, and how far apart neighbours are."""
    sharding = p.sharding if p.strategy not in ("none", "ddp") else 1
    copies = p.data_parallel // sharding
    sizes = {
        "tp": p.tp,
        "cp": p.cp,
        "dp_shard": sharding,
        "dp_replicate": copies,
        "pp": p.pp,
        "ep": p.ep,
        "hpz": p.hpz_partition or 1,
    }
    between = {
        "tp": 1,
        "ep": 1,
        "hpz": 1,
        "cp": p.tp,
        "dp_shard": p.tp,
        "dp_replicate": p.tp * sharding,
        "pp": p.gpus // p.pp,
    }
    return sizes[over], between[over]


def route(p: Parallelism, over: str) -> Route:
    """Members of a dimension's groups, and how many of a group are in one machine."""
    members, apart = group(p, over)
    machine = p.machine_gpus or MACHINE
    inside = max(1, min(members, machine // apart))
    return Route(members, inside if members % inside == 0 else 1)


MEASURED: Final = "measured_bytes_per_second"


def with_measured_link(gpu: Gpu, bytes_per_second: float) -> Gpu:
    """The card in a machine whose links were measured: their rate takes the place of the catalogue's."""
    return replace(gpu, interconnect={**gpu.interconnect, MEASURED: bytes_per_second})


def link_of(gpu: Gpu, constants: Constants) -> tuple[float, float]:
    """Bytes a second between two cards of a machine, and the share of compute behind which a transfer hides."""
    rate, hides = _link_of_catalogue(gpu, constants)
    return gpu.interconnect.get(MEASURED, rate), hides


def _link_of_catalogue(gpu: Gpu, constants: Constants) -> tuple[float, float]:
    wide = gpu.interconnect.get("bytes_per_second_bidirectional")
    if gpu.interconnect.get("name") == "NVLink" and wide and not gpu.id.startswith("rtx-"):
        return constants.nvlink_share * wide / 2, NVLINK_HIDES
    rate = constants.geforce_bytes_per_second if gpu.id.startswith("rtx-3") else constants.pcie_bytes_per_second
    return rate, constants.overlap


def hidden_by(gpu: Gpu, constants: Constants, *, leaves: bool) -> float:
    """The share of compute behind which transfers of shards hide; `leaves`: they go between machines."""
    hides = link_of(gpu, constants)[1]
    return min(hides, constants.network_overlap) if leaves else hides


def network_of(gpu: Gpu, constants: Constants) -> float:
    """Bytes a second of one GPU's network card."""
    return constants.network_share * NETWORK.get(gpu.architecture, OTHER_NETWORK)


def rate_of(found: Route, kind: str, link: float, network: float) -> float:
    """Bytes a second that a collective's wire bytes go at: of a ring that leaves machines, the slower of the two."""
    if not found.leaves:
        return link
    return network if kind in (*POINT_TO_POINT, "all_to_all") else min(link, network * found.inside)
