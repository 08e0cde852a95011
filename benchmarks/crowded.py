"""How soon /api/health and the page answer while 20 of the most expensive requests that are allowed are under way.

    python benchmarks/crowded.py --clients 20

Medians with those clients over medians without them (before and after), in one run against one server: at most 5. Every
request of the crowd must get an answer: 200, or 429 or 503 with the seconds after which to come again or a reason.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import httpx

from loralens.core import catalogue

LLAMA = dict(catalogue.model("llama-2-7b").config)
PADDED = {"sequence_length": 4096, "padded": True}
SWEEP = {
    "micro_batch_size": list(range(1, 101)),
    "sequence_length": list(range(2048, 102_048, 1000)),
    "rank": [1, 2, 4, 8, 16, 32, 64, 128, 256, 512],
}


OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 1.16 GiB. GPU 0 has a total capacity of 23.69 GiB of which 512.00 MiB is free. Of the "
    "allocated memory 22.00 GiB is allocated by PyTorch, and 700.00 MiB is reserved by PyTorch but unallocated."
)
AXOLOTL = "base_model: someone/llama\nadapter: lora\nlora_r: 16\nmicro_batch_size: 8\nsequence_len: 4096\ndatasets: x\n"


def crowd(number: int) -> tuple[str, dict[str, object]]:
    """One of the kinds of long work; the number makes each a question that was not asked before."""
    config = LLAMA | {"vocab_size": 40_000 + 8 * number}
    kinds: list[tuple[str, dict[str, object]]] = [
        ("/api/memory", {"config": config | {"num_hidden_layers": 130}, "method": "lora", "allocator": "simulated", "recipe": PADDED}),
        ("/api/sweep", {"config": config, "method": "lora", "sweep": SWEEP}),
        ("/api/fit", {"config": config | {"num_hidden_layers": 2000}, "gpu": "t4"}),
        ("/api/memory", {"config": config | {"num_hidden_layers": 2000}}),
        ("/api/lifetimes", {"config": config | {"num_hidden_layers": 1000}, "method": "lora"}),
        ("/api/plans", {"config": config | {"num_hidden_layers": 2000}, "method": "full", "gpu": "h100", "gpus": 1024, "nodes": 128}),
        ("/api/explain", {"text": OUT_OF_MEMORY, "config": config | {"num_hidden_layers": 2000}, "method": "full"}),
        ("/api/check", {"files": {"train.yaml": AXOLOTL}, "config": config | {"num_hidden_layers": 2000}, "gpu": "t4"}),
    ]  # fmt: skip
    return kinds[number % len(kinds)]


class Crowd:
    """Clients that ask without a pause until they are told to stop."""

    def __init__(self, address: str, clients: int) -> None:
        self._address = address
        self._stop = threading.Event()
        self._next = iter(range(10**9))
        self.statuses = collections.Counter[str]()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._address, timeout=120) as client:
            while not self._stop.is_set():
                path, body = crowd(next(self._next))
                try:
                    answer = client.post(path, json=body)
                    name = str(answer.status_code)
                    if answer.status_code not in (200, 429, 503):
                        name += " " + answer.text[:200]
                    pause = float(answer.headers.get("retry-after", "0"))
                except httpx.HTTPError as error:
                    name, pause = f"no answer: {type(error).__name__}", 0.0
                self.statuses[f"{path} {name}"] += 1
                self._stop.wait(min(pause, 1.0))


def median(client: httpx.Client, path: str, count: int) -> float:
    """Median milliseconds of an answer."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        client.get(path, headers={"accept": "text/html"}).raise_for_status()
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times)


def main() -> None:
    """Print the medians and what the crowd was answered."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--count", type=int, default=60)
    given = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    paths = ("/api/health", "/part2")
    with tempfile.TemporaryDirectory() as state:
        variables = {**os.environ, "LORALENS_STATE_DIR": state, "LORALENS_HUB": "off", "LORALENS_LOG_LEVEL": "warning"}
        command = [sys.executable, "-m", "loralens", "serve", "--port", str(port)]
        with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE) as server:
            try:
                assert server.stdout is not None
                server.stdout.readline()
                with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
                    for _ in range(20):  # until all workers have started
                        client.post("/api/memory", json={"config": LLAMA, "method": "lora"}).raise_for_status()
                        time.sleep(0.2)
                    idle = {path: [median(client, path, given.count)] for path in paths}
                    with Crowd(f"http://127.0.0.1:{port}", given.clients) as crowded:
                        time.sleep(3)
                        busy = {path: median(client, path, given.count) for path in paths}
                    time.sleep(5)  # what the crowd left behind is over
                    for path in paths:
                        idle[path].append(median(client, path, given.count))
            finally:
                server.terminate()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {given.clients} clients: ")
    print(json.dumps(dict(sorted(crowded.statuses.items())), indent=1))
    fine = all(name.endswith((" 200", " 429", " 503")) for name in crowded.statuses)
    for path in paths:
        ratio = busy[path] / statistics.mean(idle[path])
        fine &= ratio <= 5
        print(
            f"{path}: {idle[path][0]:.1f} and {idle[path][1]:.1f} ms idle, {busy[path]:.1f} ms crowded: {ratio:.1f} x"
        )
    print("as promised" if fine else "NOT as promised")
    sys.exit(not fine)


if __name__ == "__main__":
    main()
