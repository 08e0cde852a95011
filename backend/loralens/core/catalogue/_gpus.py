"""The accelerators that are known by name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

from loralens.core.catalogue._names import LONGEST_NAME, closest, key, shown
from loralens.core.errors import UnknownGpu

if TYPE_CHECKING:
    from loralens.core.catalogue.shapes import GpuRow


_VENDOR: Final = re.compile(r"^(?:nvidia|amd|intel|geforce|tesla|quadro|instinct|radeon)-|-(?:hbm\d\w*|generation)$")
_MEMORY: Final = re.compile(r"(.+?)-?(\d{1,3})-?gb(?:-hbm\d\w*)?")
DATA = Path(__file__).parent / "data" / "gpus.json"


ON_DEMAND: Final = "on-demand"
MARKETS: Final = (ON_DEMAND, "spot", "reserved")
"""How a machine is rented: by the hour; interruptible, so that it can be taken away; for a term of months or years."""


@dataclass(frozen=True, slots=True)
class Price:
    """A list price: on which market, whose, where it was read and when. Prices of two markets are never compared."""

    usd_per_gpu_hour: float
    market: str
    provider: str
    source: str
    date: str


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device as a process sees it (one die of a two-die module). None means: not known.

    Attributes:
        compute_capability: CUDA's, an AMD chip's LLVM name, or `mps`.
        memory_bytes: total that the driver prints; a process sees 0.3 to 1.5 GiB less (its context).
        memory_basis: `driver`, or the assumption behind `memory_bytes` in words.
        marketing_memory_gb: the size on the box; None for a GPU of one's own.
        dense_flops_per_second: peak rate per dtype, without sparsity, accumulating in float32.
        achievable_flops_per_second: fastest rate that published measurements of matrix products reached, per dtype.
        unified_memory_bytes: the pool that it shares with the processor, where it does; `memory_bytes` is what it may take.
        prices: of every market, on-demand first, the cheapest first within each.
    """

    id: str
    name: str
    vendor: str
    architecture: str
    compute_capability: str | None
    aliases: tuple[str, ...]
    memory_bytes: int
    memory_basis: str
    marketing_memory_gb: int | None
    memory_bandwidth_bytes_per_second: int | None
    dense_flops_per_second: Mapping[str, int | None]
    achievable_flops_per_second: Mapping[str, int]
    achievable_source: str | None
    interconnect: Mapping[str, Any]
    power_watts: int | None
    launch_year: int | None
    prices: tuple[Price, ...]
    sources: tuple[str, ...]
    notes: str | None
    unified_memory_bytes: int | None = None

    def prices_of(self, market: str) -> tuple[Price, ...]:
        """What is known of one market, the cheapest first."""
        return tuple(price for price in self.prices if price.market == market)

    def to_dict(self) -> GpuRow:
        """The row as JSON types, for an API answer."""
        row = {field.name: getattr(self, field.name) for field in fields(self)}
        row |= {name: dict(value) for name, value in row.items() if isinstance(value, Mapping)}
        row |= {"aliases": list(self.aliases), "sources": list(self.sources)}
        return cast("GpuRow", row | {"prices": [asdict(price) for price in self.prices]})


def known_gpu(name: str) -> Gpu:
    """The GPU of the catalogue with this id or alias.

    Names that drivers print are understood too, and the size of the memory behind a name.

    >>> known_gpu("RTX 4090").id, known_gpu("NVIDIA A100-SXM4-80GB").id, known_gpu("4090 24GB").id
    ('rtx-4090', 'a100-sxm4-80', 'rtx-4090')

    Raises:
        UnknownGpu: no GPU has this name; the hint lists names that look like it.
    """
    index = _index()
    found = _found(name) if isinstance(name, str) and len(name) <= LONGEST_NAME else None
    if found is None:
        near = closest(name, index) if isinstance(name, str) else []
        raise UnknownGpu(
            f"no GPU is called {shown(name)}",
            field="gpu",
            hint=(f"did you mean {', '.join(near)}? " if near else "")
            + "`loralens gpus` lists all names; a card of your own is custom:24GiB",
        )
    return found


def _found(name: str) -> Gpu | None:
    index = _index()
    plain = _VENDOR.sub("", key(name))
    sized = _MEMORY.fullmatch(plain)
    for spelling in (key(name), plain, *((f"{sized[1]}-{sized[2]}", sized[1]) if sized else ())):
        found = index.get(spelling)
        if found is not None and (sized is None or found.marketing_memory_gb == int(sized[2])):
            return found
    return None


@cache
def gpus() -> tuple[Gpu, ...]:
    """Every GPU of the catalogue, vendor by vendor and generation by generation."""
    return tuple(_gpu(row) for row in json.loads(DATA.read_text(encoding="utf-8"))["gpus"])


def _gpu(row: dict[str, Any]) -> Gpu:
    frozen = ("dense_flops_per_second", "achievable_flops_per_second", "interconnect")
    return Gpu(
        **{
            **row,
            **{name: MappingProxyType(row[name]) for name in frozen},
            "aliases": tuple(row["aliases"]),
            "prices": tuple(Price(**price) for price in row["prices"]),
            "sources": tuple(row["sources"]),
        }
    )


@cache
def _index() -> dict[str, Gpu]:
    return {key(name): entry for entry in gpus() for name in (entry.id, entry.name, *entry.aliases)}
