"""The GPU that is in this machine, as a name of the catalogue or a description of its own."""

from __future__ import annotations

import re

from loralens.core import catalogue
from loralens.core.errors import InvalidInput, UnknownGpu

MIB = 2**20
SAME = 0.03
"""Share by which the memory of one kind of card may differ between drivers."""


def gpu_of_this_machine() -> str:
    """The first GPU that a driver here names.

    Raises:
        InvalidInput: there is none; the hint says how to name one.
    """
    from loralens.host import system_answer

    for device in system_answer()["devices"]:
        if device["kind"] != "cpu" and device["memory_bytes"]:
            return described(device["name"], device["memory_bytes"])
    raise InvalidInput(
        "no GPU was named, and this machine has none",
        field="gpu",
        hint="name one: --gpu rtx-4090, or its memory: --gpu 24GB; loralens gpus lists all names",
    )


def described(name: str, memory_bytes: int) -> str:
    """A driver's name and memory: the catalogue's id where both agree, a description with that memory otherwise.

    >>> described("NVIDIA GeForce RTX 4090", 24564 * 2**20), described("Some (tm) card", 6144 * 2**20)
    ('rtx-4090', 'custom:6144MiB,name=Some (tm) card')
    """
    try:
        known = catalogue.gpu(name)
        if abs(known.memory_bytes - memory_bytes) <= SAME * memory_bytes:
            return known.id
    except UnknownGpu:
        pass
    title = re.sub(r"[^\w .()-]", " ", name)[:60].strip()
    return f"custom:{memory_bytes // MIB}MiB" + (f",name={title}" if title else "")
