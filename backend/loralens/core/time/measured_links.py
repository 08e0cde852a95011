"""Transfers between the GPUs of one machine, measured there: a rate and a latency for each kind of collective.

A message takes its latency and then its wire bytes at the rate (the model of NCCL's tests, doc/PERFORMANCE.md): an all-reduce of
S bytes among n sends 2 (n - 1) / n S from each, an all-gather that ends with S bytes (n - 1) / n S.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import fsum
from typing import Any, Final

from loralens.core.errors import InvalidInput
from loralens.core.time.links import Route

KINDS: Final = ("all_reduce", "all_gather")


@dataclass(frozen=True, slots=True)
class TimedMessage:
    """One collective of so many bytes: an all-gather's are those that every member has in the end."""

    kind: str
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class LinkRate:
    """What messages of one kind take: the latency, then the wire bytes at the rate."""

    bytes_per_second: float
    latency_seconds: float


@dataclass(frozen=True, slots=True)
class MeasuredLinks:
    """The links among the members of one machine."""

    device: str  # the card's name, or cpu
    backend: str  # nccl or gloo
    members: int
    all_reduce: LinkRate
    all_gather: LinkRate
    date: str
    software: str
    messages: tuple[TimedMessage, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """As JSON types."""
        return asdict(self)

    @staticmethod
    def read(data: Mapping[str, Any]) -> MeasuredLinks:
        """From what `to_dict` wrote.

        Raises:
            InvalidInput: a field is missing, unknown or no number above zero.
        """
        try:
            parts = {
                **{kind: LinkRate(**data[kind]) for kind in KINDS},
                "messages": tuple(TimedMessage(**row) for row in data.get("messages", ())),
            }
            found = MeasuredLinks(**{**data, **parts})
            rates = found.all_reduce, found.all_gather
            numbers = [found.members - 1, *(rate.bytes_per_second for rate in rates)]
            if not all(isinstance(number, (int, float)) and number > 0 for number in numbers):
                raise TypeError
        except (TypeError, KeyError, AttributeError):
            names = ", ".join(field.name for field in fields(MeasuredLinks))
            raise InvalidInput(f"these are no measured links: they have {names}", field="links") from None
        return found


def fitted(kind: str, members: int, messages: Sequence[TimedMessage]) -> LinkRate:
    """The latency and rate with which a kind's messages are off least, each by its share of its own time.

    Least squares on seconds over measured seconds; neither number is below zero.
    """
    rows = [(1 / m.seconds, _wire(kind, members, m.bytes) / m.seconds) for m in messages if m.kind == kind]
    a, b, c = (fsum(x * y for x, y in pairs) for pairs in (
        [(one, one) for one, _ in rows], rows, [(two, two) for _, two in rows],
    ))  # fmt: skip
    d, e = fsum(one for one, _ in rows), fsum(two for _, two in rows)
    determinant = a * c - b * b
    latency = (d * c - b * e) / determinant if determinant > 0 else 0.0
    if latency <= 0:
        latency, each = 0.0, e / c
    else:
        each = (a * e - b * d) / determinant
    if each <= 0:  # nothing grows with size: the largest message alone says what a byte takes at most
        largest = max((m for m in messages if m.kind == kind), key=lambda m: m.bytes)
        latency, each = 0.0, largest.seconds / _wire(kind, members, largest.bytes)
    return LinkRate(1 / each, latency)


def seconds_of_message(rate: LinkRate, kind: str, members: int, size: int) -> float:
    """What a message takes at a rate."""
    return rate.latency_seconds + _wire(kind, members, size) / rate.bytes_per_second


def _wire(kind: str, members: int, size: int) -> float:
    return Route(members, members).wire(kind, size)
