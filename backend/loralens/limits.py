"""How much one client may ask for: requests a second, requests at a time and streams at a time, over all workers.

A client is a network address (of IPv6 its /64, which is what one customer gets). Everything lies in one small file that
the workers map into memory: a client's place in it is a keyed hash of its address, so two clients share a place by
chance only and nobody chooses whose.
"""

from __future__ import annotations

import hashlib
import ipaddress
import mmap
import os
import secrets
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loralens.jobs.locks import FileLock
from loralens.settings import Settings

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows has no fcntl: one worker there
    fcntl = None  # type: ignore[assignment]

FILE_VARIABLE: Final = "LORALENS_LIMITS_FILE"
"""Where a server tells its workers the file of them all."""
PLACES: Final = 1 << 16
_CLOCK: Final = struct.Struct("<d")
_COUNTS: Final = struct.Struct("<HH")
_ROW: Final = _CLOCK.size
_KEY: Final = 16


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one client: requests per second in the long run, in one burst, at a time; and streams at a time."""

    rate: float
    burst: int
    requests: int
    streams: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a request is not admitted, and when to come again."""

    detail: str
    seconds: float


def new_file(workers: int) -> Path:
    """A file for so many workers; whoever made it removes it."""
    descriptor, name = tempfile.mkstemp(prefix="loralens-limits-")
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(_KEY))
        file.truncate(_size(workers))
    return Path(name)


def client_key(address: str) -> str:
    """The address, or its /64.

    >>> client_key("10.0.0.7"), client_key("2001:db8:1:2:3:4:5:6")
    ('10.0.0.7', '2001:db8:1:2::')
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Address(int(parsed) >> 64 << 64))
    return str(parsed)


class Limits:
    """The bounds of all clients, kept in `file`; `worker` is this process's column of what is under way."""

    def __init__(self, bounds: Bounds, file: Path, worker: int = 0, workers: int = 1) -> None:
        self._bounds = bounds
        self._workers = workers
        self._worker = worker
        self._file = file.open("r+b")
        self._map = mmap.mmap(self._file.fileno(), _size(workers))
        self._secret = bytes(self._map[:_KEY])
        if workers > 1:
            with self._locked():  # what a worker that died in this place had under way is over
                for place in range(PLACES):
                    _COUNTS.pack_into(self._map, self._at(place, worker), 0, 0)

    def close(self) -> None:
        """Unmap the file."""
        self._map.close()
        self._file.close()

    def admit(self, client: str, *, stream: bool) -> Refused | None:
        """Count a request in, or say why not; what was admitted must be `left`.

        Source: the generic cell rate algorithm, ITU-T I.371 annex A: one time per client, no counter to refill.
        """
        place, now = self._place(client), time.monotonic()
        with self._locked():
            busy = self._under_way(place)[stream]
            most = self._bounds.streams if stream else self._bounds.requests
            if busy >= most:
                what = "streams" if stream else "requests"
                return Refused(f"{busy} {what} from your address are under way, at most {most} may be", 1.0)
            due = max(_CLOCK.unpack_from(self._map, self._row(place))[0], now)
            # A clock that began anew (another boot) must not lock anybody out.
            due = now if due > now + 2 * self._bounds.burst / self._bounds.rate else due
            early = due - now - (self._bounds.burst - 1) / self._bounds.rate
            if early > 0:
                return Refused(f"more than {self._bounds.rate:g} requests a second from your address", early)
            _CLOCK.pack_into(self._map, self._row(place), due + 1 / self._bounds.rate)
            self._count(place, stream, 1)
        return None

    def left(self, client: str, *, stream: bool) -> None:
        """Count a request out."""
        with self._locked():
            self._count(self._place(client), stream, -1)

    def _under_way(self, place: int) -> tuple[int, int]:
        counts = [_COUNTS.unpack_from(self._map, self._at(place, worker)) for worker in range(self._workers)]
        return sum(count[0] for count in counts), sum(count[1] for count in counts)

    def _count(self, place: int, stream: bool, step: int) -> None:
        counts = list(_COUNTS.unpack_from(self._map, self._at(place, self._worker)))
        counts[stream] = max(0, counts[stream] + step)
        _COUNTS.pack_into(self._map, self._at(place, self._worker), *counts)

    def _place(self, client: str) -> int:
        digest = hashlib.blake2b(client.encode(), key=self._secret, digest_size=4).digest()
        return int.from_bytes(digest, "little") % PLACES

    def _row(self, place: int) -> int:
        return _KEY + place * (_ROW + _COUNTS.size * self._workers)

    def _at(self, place: int, worker: int) -> int:
        return self._row(place) + _ROW + _COUNTS.size * worker

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if self._workers == 1 or fcntl is None:
            yield
            return
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)


@contextmanager
def shared_limits(settings: Settings) -> Iterator[Limits]:
    """The limits of this process, in the file of all workers, or in one of its own.

    A worker takes the first column that nobody holds; the lock on it goes with the process.
    """
    bounds = Bounds(settings.client_rate, settings.client_burst, settings.client_requests, settings.client_streams)
    given = os.environ.get(FILE_VARIABLE)
    if given is None:
        file = new_file(1)
        limits = Limits(bounds, file)
        try:
            yield limits
        finally:
            limits.close()
            file.unlink(missing_ok=True)
        return
    file = Path(given)
    locks = (FileLock(Path(f"{file}.{worker}")) for worker in range(2 * settings.workers))
    worker, lock = next((number, lock) for number, lock in enumerate(locks) if lock.acquire())
    limits = Limits(bounds, file, worker, 2 * settings.workers)
    try:
        yield limits
    finally:
        limits.close()
        lock.release(remove=True)


def _size(workers: int) -> int:
    return _KEY + PLACES * (_ROW + _COUNTS.size * workers)
