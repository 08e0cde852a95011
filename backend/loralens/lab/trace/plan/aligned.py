"""Several traces of one step, side by side: the same operators in the same order, with sizes that differ."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from loralens.lab.trace.plan.sizes import Fitter, Setting

if TYPE_CHECKING:
    from loralens.core.tape.size import Size
    from loralens.lab.trace.ledger import Recorded, TracedStorage

_MANY: Final = 1.1  # times as many tensors: no copy here or there, but a loop


class Misfit(Exception):
    """Traces that no one plan describes.

    Attributes:
        resident: the difference is in what lives before the step begins.
        grows: one of them has many more operators, as of a loop over positions or chunks.
    """

    def __init__(self, said: str, *, resident: bool = False, grows: bool = False) -> None:
        super().__init__(said)
        self.said = said
        self.resident = resident
        self.grows = grows


@dataclass(frozen=True, slots=True)
class Aligned:
    """One trace that stands for all, with a polynomial for each of its storages."""

    record: Recorded
    sizes: list[Size]


def align(records: list[Recorded], settings: list[Setting]) -> Aligned:
    """The polynomials behind traces of the same step at these settings.

    Raises:
        Misfit: a size is no polynomial of two terms.
    """
    last, fitter, sizes = records[-1], Fitter(settings), []
    for storages in zip(*(record.storages for record in records), strict=True):
        seen = tuple(storage.size_bytes for storage in storages)
        size = fitter.fit(seen)
        if size is None:
            raise Misfit(
                f"{_name(storages[-1])}: {', '.join(f'{bytes_:,}' for bytes_ in seen)} bytes at {_at(settings)}",
                resident=_resident(storages[-1]),
            )
        sizes.append(size)
    return Aligned(last, sizes)


def check(aligned: Aligned, setting: Setting, record: Recorded, traced_at: Setting) -> None:
    """Compare with a trace that had no part in the fit: every operator and every byte.

    Raises:
        Misfit: naming the first difference.
    """
    same_step(record, setting, aligned.record, traced_at)
    for storage, size in zip(record.storages, aligned.sizes, strict=True):
        if storage.size_bytes != size.at(*setting):
            raise Misfit(
                f"{_name(storage)}: {storage.size_bytes:,} bytes at {_at([setting])}, not {size.at(*setting):,}",
                resident=_resident(storage),
            )


def same_step(record: Recorded, setting: Setting, other: Recorded, at: Setting) -> None:
    """Do the same operators run in both, in the same order?

    Raises:
        Misfit: naming the first difference.
    """
    many = sorted((len(record.storages), len(other.storages)))
    grows = many[1] > _MANY * many[0]
    for one, two in zip(record.storages, other.storages, strict=False):
        if (one.op, one.owner, one.dtype, one.phase) != (two.op, two.owner, two.dtype, two.phase):
            said = f"{_name(one)} at {_at([setting])}, where at {_at([at])} comes {_name(two)}"
            raise Misfit(said, resident=_resident(one), grows=grows)
    if many[0] != many[1]:
        raise Misfit(
            f"{len(record.storages):,} tensors at {_at([setting])}, {len(other.storages):,} at {_at([at])}", grows=grows
        )
    if record.events != other.events or record.marks != other.marks:
        raise Misfit(f"tensors end in another order at {_at([setting])} than at {_at([at])}")


def in_order(record: Recorded) -> Recorded:
    """With what is released at once in the order of birth: a cache that is emptied goes by addresses."""
    cuts = {event for _, event in record.marks}
    events: list[int] = []
    run: list[int] = []
    for position, event in enumerate(record.events):
        if run and (event > 0 or position in cuts):
            events += sorted(run, reverse=True)
            run = []
        (run if event < 0 else events).append(event)
    return replace(record, events=events + sorted(run, reverse=True))


def _resident(storage: TracedStorage) -> bool:
    return storage.phase == "setup" and storage.kind != "input"


def _name(storage: TracedStorage) -> str:
    return f"{storage.op} of {storage.owner or 'the step'}"


def _at(settings: list[Setting]) -> str:
    return "; ".join(f"{batch} × {length:,} tokens, rank {rank}" for batch, length, rank in settings)
