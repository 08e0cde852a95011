"""What a server keeps of hostile requests: resident memory and open files before and after, and no answer of 500.

    python benchmarks/hostile.py --requests 10000 --seed 1

Starts a server of its own in a temporary folder. The same seed sends the same requests. Linux only: /proc is read.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

from loralens.core import catalogue
from loralens.core.question.recipe import WORDS

WARM = 500
PATHS = ("/api/memory", "/api/plan", "/api/parameters", "/api/fit", "/api/serving", "/api/models/resolve")
VALUES: list[Any] = [0, -1, 1, 2**31, 2**63, 10**99, 10**400, 0.5, 1e308, 5e-324, True, None, "", "8", "\ud800", [], {},
                     "(a+)+$", ["q_proj"] * 300, {"a": {"b": [1]}}, "\x00", "../../etc/passwd"]  # fmt: skip
CONFIGS = [catalogue.model(name).config for name in ("7B", "qwen2.5-0.5b", "gpt2", "mixtral-8x7b", "t5-base")]


class Hostile:
    """Requests of one seed, one after the other."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def request(self, client: httpx.Client) -> int:
        """Send one; returns the status, 0 where the connection was closed without one."""
        kind = self._random.choice((self._config, self._recipe, self._query, self._garbage, self._upload, self._large))
        method, path, content, headers = kind()
        try:
            return client.request(method, path, content=content, headers=headers).status_code
        except httpx.TransportError:
            return 0

    def _config(self) -> tuple[str, str, bytes, dict[str, str]]:
        config = dict(self._random.choice(CONFIGS))
        for _ in range(self._random.randint(1, 3)):
            config[self._random.choice([*config, "unknown", "rope_scaling"])] = self._random.choice(VALUES)
        return self._json({"config": config, "method": self._random.choice(("lora", "qlora", "full"))})

    def _recipe(self) -> tuple[str, str, bytes, dict[str, str]]:
        recipe = {self._random.choice(WORDS).name: self._random.choice(VALUES) for _ in range(3)}
        return self._json({"model": "qwen2.5-0.5b", "method": "lora", "recipe": recipe, "gpu": "a100"})

    def _query(self) -> tuple[str, str, bytes, dict[str, str]]:
        word, value = self._random.choice(WORDS).name, self._random.choice(VALUES)
        text = httpx.QueryParams({"model": "gpt2", word: ascii(value)[:5000]})
        return "GET", f"/api/memory?{text}", b"", {}

    def _garbage(self) -> tuple[str, str, bytes, dict[str, str]]:
        method = self._random.choice(("GET", "POST", "PUT", "OPTIONS", "DELETE"))
        path = self._random.choice((*PATHS, "/api/jobs/x/events?after=" + "9" * 30, "/api/nothing", "/%00", "//x"))
        return method, path, self._random.randbytes(200), {"content-type": "application/json"}

    def _upload(self) -> tuple[str, str, bytes, dict[str, str]]:
        header = json.dumps({f"a{n}": self._random.choice(VALUES) for n in range(20)}).encode()
        weights = len(header).to_bytes(8, "little") + header + self._random.randbytes(50)
        parts = (("config", b'{"peft_type":"LORA","r":4}'), ("weights", weights))
        body = b"".join(
            b'--b\r\ncontent-disposition: form-data; name="%s"; filename="f"\r\n\r\n%s\r\n' % (name.encode(), part)
            for name, part in parts
        )
        kind = {"content-type": "multipart/form-data; boundary=b"}
        return "POST", "/api/adapters/uploads", body + b"--b--\r\n", kind

    def _large(self) -> tuple[str, str, bytes, dict[str, str]]:
        config = {**CONFIGS[1], "x": [self._random.randint(0, 9)] * self._random.randint(1, 40_000)}
        return self._json({"config": config, "method": "lora"})

    def _json(self, body: Any) -> tuple[str, str, bytes, dict[str, str]]:
        path = self._random.choice(PATHS)
        return "POST", path, json.dumps(body).encode(), {"content-type": "application/json"}


def footprint(process: int) -> tuple[int, int]:
    """Resident bytes and open descriptors of the server's process and of all that it started (shared pages count each time)."""
    pages = descriptors = 0
    for one in family(process):
        try:
            pages += int(Path(f"/proc/{one}/statm").read_text().split()[1])
            descriptors += len(list(Path(f"/proc/{one}/fd").iterdir()))
        except (FileNotFoundError, PermissionError):  # ended meanwhile
            continue
    return pages * os.sysconf("SC_PAGE_SIZE"), descriptors


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
    hostile, statuses = Hostile(seed), collections.Counter[int]()
    with httpx.Client(base_url=address, timeout=120) as client:
        for _ in range(WARM):
            hostile.request(client)
        warm = footprint(process)
        for _ in range(count):
            statuses[hostile.request(client)] += 1
        after = footprint(process)
    faults = statuses[500] + statuses[0]
    print(f"seed {seed}, {count} requests after {WARM} to warm up: {dict(sorted(statuses.items()))}")
    print(f"resident {warm[0] / 2**20:.0f} -> {after[0] / 2**20:.0f} MiB, descriptors {warm[1]} -> {after[1]}")
    fine = faults == 0 and after[0] - warm[0] <= 100 * 2**20 and after[1] - warm[1] <= 10
    print("as promised" if fine else f"NOT as promised: {faults} faults")
    sys.exit(not fine)


if __name__ == "__main__":
    main()
