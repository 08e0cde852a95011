"""What a server keeps of hostile requests to every operation that it has: resident memory and open files before and after.

    python benchmarks/hostile.py --requests 10000 --seed 1

Starts a server of its own in a temporary folder. The operations are read from its OpenAPI document (`hostile_requests`), so that
none is forgotten. The same seed sends the same requests, but for ids that the server has made up. No answer may be 500, none may
be missing. Jobs are called off as soon as they are accepted; the process that ran them is measured by itself. Linux only: /proc
is read.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from crowded import crowd
from hostile_requests import Asked, Requests

WARM = 500
LONGEST_STREAM_SECONDS = 2.0


class Client:
    """Sends requests one after the other and counts what comes back."""

    def __init__(self, http: httpx.Client, requests: Requests) -> None:
        self._http, self._requests = http, requests
        self.statuses = collections.Counter[int]()
        self.asked = collections.Counter[str]()
        self.answered = collections.Counter[str]()
        self.faults: list[str] = []

    def send(self) -> None:
        """One request."""
        asked = self._requests.next()
        name = f"{asked.operation.method} {asked.operation.path}"
        self.asked[name] += 1
        status = self._answer(asked)
        self.statuses[status] += 1
        self.answered[name] += status in range(200, 300)
        if status in (0, 500):
            self.faults.append(f"{status}: {asked.operation.method} {asked.path[:200]} {asked.content[:300]!r}")

    def _answer(self, asked: Asked) -> int:
        body, begun = b"", time.monotonic()
        try:
            with self._http.stream(
                asked.operation.method, asked.path, content=asked.content, headers=asked.headers
            ) as answer:
                for part in answer.iter_bytes():
                    body += part
                    if (
                        time.monotonic() - begun > LONGEST_STREAM_SECONDS
                        and "event-stream" in answer.headers["content-type"]
                    ):
                        break
        except httpx.TransportError:
            return 0
        if answer.status_code in (200, 201, 202) and answer.headers.get("content-type") == "application/json":
            self._remember(json.loads(body), cancel=answer.status_code == 202)
        return answer.status_code

    def _remember(self, found: Any, *, cancel: bool) -> None:
        name = found.get("id") if isinstance(found, dict) else None
        if isinstance(name, str):
            self._requests.known.append(name)
            if cancel:
                self._http.delete(f"/api/jobs/{name}")


def footprint(process: int) -> tuple[int, int, int]:
    """Resident bytes and open descriptors of the server's process and its workers, and resident bytes of its job's process.

    Shared pages count each time.
    """
    pages = descriptors = of_jobs = 0
    for one in family(process):
        try:
            if b"loralens.jobs.child" in Path(f"/proc/{one}/cmdline").read_bytes():
                of_jobs += int(Path(f"/proc/{one}/statm").read_text().split()[1])
                continue
            pages += int(Path(f"/proc/{one}/statm").read_text().split()[1])
            descriptors += len(list(Path(f"/proc/{one}/fd").iterdir()))
        except (FileNotFoundError, PermissionError):  # ended meanwhile
            continue
    size = os.sysconf("SC_PAGE_SIZE")
    return pages * size, descriptors, of_jobs * size


def family(process: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(status.parent.name))
    found = [process]
    for one in found:
        found += children.get(one, [])
    return found


def main() -> None:
    """Print what the server held when it was warm and at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as state:
        variables = {**os.environ, "LORALENS_STATE_DIR": state, "LORALENS_HUB": "off"}
        command = [sys.executable, "-m", "loralens", "serve", "--port", str(port)]
        with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE) as server:
            try:
                assert server.stdout is not None
                server.stdout.readline()
                _run(server.pid, f"http://127.0.0.1:{port}", given.requests, given.seed)
            finally:
                server.terminate()


def _run(process: int, address: str, count: int, seed: int) -> None:
    with httpx.Client(base_url=address, timeout=120) as http:
        document = http.get("/api/openapi.json").json()
        client = Client(http, Requests(seed, document))
        _work_hard(http)
        for _ in range(max(WARM, 3 * sum(map(len, document["paths"].values())))):
            client.send()
        warm, own = footprint(process), _own(process)
        client.statuses.clear()
        client.asked.clear()
        for _ in range(count):
            client.send()
        after, own_after = footprint(process), _own(process)
    least, times = client.asked.most_common()[-1]
    print(f"seed {seed}, {count} requests: {dict(sorted(client.statuses.items()))}")
    print(f"{len(client.asked)} operations, each at least {times} times ({least})")
    print(
        f"server and workers: resident {warm[0] / 2**20:.0f} -> {after[0] / 2**20:.0f} MiB, descriptors {warm[1]} -> {after[1]}"
    )
    print(
        f"the server alone: {own / 2**20:.0f} -> {own_after / 2**20:.0f} MiB; the process of its jobs: {after[2] / 2**20:.0f} MiB"
    )
    never = [name for name, times in client.answered.items() if not times]
    print(f"never answered with 2xx: {', '.join(never) or 'none'}")
    print(*client.faults[:20], sep="\n")
    fine = not client.faults and after[0] - warm[0] <= 100 * 2**20 and after[1] - warm[1] <= 10
    print("as promised" if fine else f"NOT as promised: {len(client.faults)} faults")
    sys.exit(not fine)


def _work_hard(http: httpx.Client) -> None:
    """Each worker does the largest work that is allowed: what that takes is taken again and again, not more and more."""
    with ThreadPoolExecutor(8) as together:
        for _ in range(3):
            asked = [crowd(number) for number in range(8)]
            asked += [("/api/memory", {"model": "qwen3-next-80b-a3b", "allocator": "simulated"})] * 2
            list(together.map(lambda one: http.post(one[0], json=one[1]), asked))


def _own(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
