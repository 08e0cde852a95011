"""What a rank sends and receives: collectives by phase, kind and the GPUs that take part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from loralens.core.tape.ledger import Ledger
from loralens.core.tape.size import ZERO, Size

Key = tuple[str, str, str]  # phase, kind of collective, dimension of the mesh


@dataclass(slots=True)
class Traffic:
    """Calls, and bytes of the largest tensor of each: the gathered one, the one before it is scattered, the reduced one."""

    ledger: Ledger | None = None  # whose phase it is
    stands_for: Mapping[int, int] = field(default_factory=dict)  # walked layer -> how many more it stands for
    sums: dict[Key, tuple[int, Size]] = field(default_factory=dict)
    _once: set[Key] = field(default_factory=set)

    def sent(self, kind: str, size: Size, over: str, number: int = 0, *, once: bool = False) -> None:
        """A collective of a layer, on behalf of the layers that it stands for too. `once`: not in every micro batch."""
        phase = "" if self.ledger is None else self.ledger.phase
        self.add(phase, kind, over, size, 1 + self.stands_for.get(number, 0), once=once)

    def add(self, phase: str, kind: str, over: str, size: Size, times: int = 1, *, once: bool = False) -> None:
        """`times` equal calls. `once`: in a step, not in every micro batch."""
        if not size.packed or not times:
            return
        key = ("forward" if phase == "setup" else phase, kind, over)  # the root is gathered before all else
        calls, total = self.sums.get(key, (0, ZERO))
        self.sums[key] = (calls + times, total + size * times)
        if once:
            self._once.add(key)

    def alone(self) -> Traffic:
        """The sums without the walk."""
        return Traffic(sums=self.sums, _once=self._once)

    def rows(self) -> Iterator[tuple[Key, int, Size, bool]]:
        """As counted: of a micro batch, or where the last value is true of a step."""
        for key, (calls, size) in self.sums.items():
            yield key, calls, size, key in self._once

    def of_step(self, micro_batches: int) -> Iterator[tuple[Key, int, Size]]:
        """Over the micro batches of an optimizer step."""
        for key, calls, size, once in self.rows():
            times = 1 if once else micro_batches
            yield key, calls * times, size * times
