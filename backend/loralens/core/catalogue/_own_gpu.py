"""A GPU that is not in the catalogue, described in the request itself: `custom:24GiB,1008GB/s,165TFLOP/s,name=Lab card`.

A size alone does too: `24GB`. Memory in GB means what a card's box means by it, which is GiB.

The unit says what a number is, so the parts may come in any order. Only the memory is needed; bandwidth and rate that
are not given stay unknown, and no other card's figure takes their place.
"""

from __future__ import annotations

import re
from decimal import Decimal
from types import MappingProxyType
from typing import Final, NamedTuple

from loralens.core.catalogue._gpus import Gpu
from loralens.core.catalogue._names import shown
from loralens.core.errors import InvalidInput

PREFIX: Final = "custom:"
OWN_VENDOR: Final = "own"
LONGEST_TITLE: Final = 60
GIB: Final = 2**30


class Quantity(NamedTuple):
    """One kind of number: its unit, the factor to the integer kept, and the range in that unit that is believed."""

    what: str
    unit: str
    factor: int
    least: Decimal
    most: Decimal


# The ranges only catch slips of unit (24 MiB for 24 GiB); no device is judged by them.
_UNITS: Final = {
    "gib": Quantity("memory", "GiB", GIB, Decimal("0.5"), Decimal(4096)),
    "gb": Quantity("memory", "GiB", GIB, Decimal("0.5"), Decimal(4096)),
    "mib": Quantity("memory", "MiB", 2**20, Decimal(512), Decimal(4096 * 1024)),
    "gb/s": Quantity("bandwidth", "GB/s", 10**9, Decimal(1), Decimal(100_000)),
    "tflop/s": Quantity("rate", "TFLOP/s", 10**12, Decimal("0.01"), Decimal(100_000)),
}
_NUMBER: Final = re.compile(r"([0-9]{1,7}(?:\.[0-9]{1,3})?)\s*([a-z/]{2,8})", re.IGNORECASE)
_SIZE: Final = re.compile(r"\s*[0-9]{1,7}(?:\.[0-9]{1,3})?\s*(?:gib|gb|mib)\s*", re.IGNORECASE)
_TITLE: Final = re.compile(rf"[\w .()-]{{1,{LONGEST_TITLE}}}")
_HINT: Final = "try custom:24GiB, or custom:24GiB,1008GB/s,165TFLOP/s,name=My card"


def is_own(name: str) -> bool:
    """Whether a GPU's name is a description rather than a name.

    >>> is_own("custom:24GiB"), is_own("24 GB"), is_own("rtx-4090")
    (True, True, False)
    """
    return name.lstrip()[: len(PREFIX)].lower() == PREFIX or _SIZE.fullmatch(name) is not None


def own_gpu(text: str) -> Gpu:
    """The GPU that a `custom:` text describes; its `id` is the same text in canonical form.

    Memory is what the driver reports. The rate is the dense 16-bit one, without sparsity: other data types stay unknown.

    >>> own_gpu("custom: 165 tflop/s, 24GiB").id
    'custom:24GiB,165TFLOP/s'

    Raises:
        InvalidInput: no memory, a part twice, an unknown unit, or a number out of range.
    """
    numbers: dict[str, tuple[str, int]] = {}
    title: str | None = None
    described = text if _SIZE.fullmatch(text) else text.strip()[len(PREFIX) :]
    for part in (piece.strip() for piece in described.split(",")):
        if part[:5].lower() == "name=":
            if title is not None:
                raise _refused("the name is given twice")
            title = _title(part[5:].strip())
            continue
        what, canonical, value = _number(part)
        if what in numbers:
            raise _refused(f"the {what} is given twice")
        numbers[what] = canonical, value
    if "memory" not in numbers:
        raise _refused("a GPU of your own needs its memory")
    order = [numbers[what] for what in ("memory", "bandwidth", "rate") if what in numbers]
    words = [canonical for canonical, _ in order] + ([f"name={title}"] if title else [])
    rate = numbers["rate"][1] if "rate" in numbers else None
    return Gpu(
        id=PREFIX + ",".join(words),
        name=title or f"own GPU, {order[0][0]}",
        vendor=OWN_VENDOR,
        architecture="not known",
        compute_capability=None,
        aliases=(),
        memory_bytes=numbers["memory"][1],
        memory_basis="given in the request",
        marketing_memory_gb=None,
        memory_bandwidth_bytes_per_second=numbers["bandwidth"][1] if "bandwidth" in numbers else None,
        dense_flops_per_second=MappingProxyType({"bfloat16": rate, "float16": rate}),
        achievable_flops_per_second=MappingProxyType({}),
        achievable_source=None,
        interconnect=MappingProxyType({}),
        power_watts=None,
        launch_year=None,
        prices=(),
        sources=("given in the request",),
        notes=None,
    )


def _number(part: str) -> tuple[str, str, int]:
    """What a part means, its canonical text, and the integer in bytes, bytes per second or operations per second."""
    found = _NUMBER.fullmatch(part)
    quantity = _UNITS.get(found[2].lower()) if found else None
    if found is None or quantity is None:
        units = ", ".join(dict.fromkeys(known.unit for known in _UNITS.values()))
        raise _refused(f"{shown(part)} is not a number with one of the units {units}")
    value = Decimal(found[1])
    if not quantity.least <= value <= quantity.most:
        raise _refused(
            f"the {quantity.what} must be between {quantity.least} and {quantity.most} {quantity.unit}, got {found[1]}"
        )
    digits = f"{value.normalize():f}"
    return quantity.what, f"{digits}{quantity.unit}", round(value * quantity.factor)


def _title(text: str) -> str:
    if not _TITLE.fullmatch(text):
        raise _refused(f"the name must be 1 to {LONGEST_TITLE} letters, digits, spaces or . ( ) - _, got {shown(text)}")
    return text


def _refused(message: str) -> InvalidInput:
    return InvalidInput(message, field="gpu", hint=_HINT)
