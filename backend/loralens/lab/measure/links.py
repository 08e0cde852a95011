"""Transfers between the GPUs of this machine, timed through torch.distributed: nccl among GPUs, gloo among processes.

One process for each member, started as programs of their own, so that a job's process can start them too.
"""

from __future__ import annotations

import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist

from loralens.core.errors import DeviceUnavailable, InvalidInput
from loralens.core.time.measured_links import KINDS, MeasuredLinks, TimedMessage, fitted

SIZES: Final = {
    "nccl": tuple(2**power for power in (10, 14, 17, 20, 23, 26, 28)),
    "gloo": tuple(2**power for power in (10, 14, 17, 20, 22, 24)),
}
"""Bytes of a message, by backend."""
MOST_MEMBERS: Final = 64
ROUNDS: Final = 5
ROUND_SECONDS: Final = 0.05
MOST_SECONDS: Final = 120


def members_of(kind: str, members: int | None) -> int:
    """How many take part: as asked, or all GPUs of the machine; of a processor none is meant where nothing is asked.

    Raises:
        DeviceUnavailable: more GPUs are asked for than there are.
        InvalidInput: too few or too many.
    """
    there = torch.cuda.device_count() if kind == "cuda" else MOST_MEMBERS
    found = members if members is not None else (there if kind == "cuda" else 1)
    if not 1 <= found <= MOST_MEMBERS:
        raise InvalidInput(f"links are measured between 2 to {MOST_MEMBERS} members, got {found}", field="members")
    if found > there:
        raise DeviceUnavailable(
            f"{found} GPUs are asked for and {there} are here", field="members", hint=f"try members={there}"
        )
    return found


def measure_links(kind: str, members: int, sizes: Sequence[int] | None = None) -> Iterator[dict[str, object]]:
    """Messages of so many bytes. Yields `{"type": "message", kind, bytes, seconds}`, at the end `{"type": "links", "links": …}`.

    Raises:
        DeviceUnavailable: the members cannot reach each other.
    """
    backend = "nccl" if kind == "cuda" else "gloo"
    messages = []
    with tempfile.TemporaryDirectory() as folder:
        ranks = [_started(rank, members, backend, Path(folder), sizes or SIZES[backend]) for rank in range(members)]
        try:
            first = ranks[0].stdout
            assert first is not None  # it is a pipe
            for line in first:
                message = TimedMessage(**json.loads(line))
                messages.append(message)
                yield {"type": "message", "kind": message.kind, "bytes": message.bytes, "seconds": message.seconds}
            for rank in ranks:
                rank.wait(MOST_SECONDS)
        finally:
            for rank in ranks:
                rank.kill()
                rank.communicate()
    if {message.kind for message in messages} != set(KINDS):
        raise DeviceUnavailable(f"{members} processes could not exchange tensors over {backend}", field="members")
    rates = {name: fitted(name, members, messages) for name in KINDS}
    found = MeasuredLinks(
        torch.cuda.get_device_name(0) if kind == "cuda" else "cpu",
        backend,
        members,
        **rates,
        date=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        software=f"torch {torch.__version__}",
        messages=tuple(messages),
    )
    yield {"type": "links", "links": found.to_dict()}


def _started(rank: int, members: int, backend: str, folder: Path, sizes: Sequence[int]) -> subprocess.Popen[str]:
    own = [str(rank), str(members), backend, str(folder / "store"), *map(str, sizes)]
    words = [sys.executable, "-m", "loralens.lab.measure.links", *own]
    root = str(Path(__file__).parents[3])
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
    }
    if backend == "gloo":
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    return subprocess.Popen(
        words, env=environment, text=True, stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


def run_rank(rank: int, members: int, backend: str, store: str, sizes: Sequence[int]) -> Iterator[TimedMessage]:
    """One member's part; the times are those of the slowest, since each waits for all."""
    if backend == "nccl":
        torch.cuda.set_device(rank)
    dist.init_process_group(
        backend, init_method=f"file://{store}", rank=rank, world_size=members,
        timeout=datetime.timedelta(seconds=MOST_SECONDS),
    )  # fmt: skip
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    try:
        for kind in KINDS:
            for size in sizes:
                whole = torch.zeros(-(-size // (4 * members)) * members, device=device)
                yield TimedMessage(kind, whole.numel() * 4, _timed(kind, whole, rank, members))
    finally:
        dist.destroy_process_group()


def _timed(kind: str, whole: torch.Tensor, rank: int, members: int) -> float:
    own = whole.chunk(members)[rank].clone()

    def once() -> None:
        if kind == "all_reduce":
            dist.all_reduce(whole)
        else:
            dist.all_gather_into_tensor(whole, own)

    first = _seconds(once, whole, 3)
    often = torch.tensor([max(1, min(1000, int(ROUND_SECONDS / first)))], device=whole.device)
    dist.broadcast(often, 0)  # all do the same number of turns
    return statistics.median(_seconds(once, whole, int(often)) for _ in range(ROUNDS))


def _seconds(once: Any, whole: torch.Tensor, often: int) -> float:
    dist.barrier()
    begun = time.perf_counter()
    for _ in range(often):
        once()
    if whole.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - begun) / often


if __name__ == "__main__":
    own, of, over, where, *lengths = sys.argv[1:]
    for timed in run_rank(int(own), int(of), over, where, [int(length) for length in lengths]):
        if own == "0":
            print(json.dumps({"kind": timed.kind, "bytes": timed.bytes, "seconds": timed.seconds}), flush=True)
