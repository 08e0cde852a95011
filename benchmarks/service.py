"""How many requests a second the service answers, beside a bare hello of the same framework and server in the same run.

    python benchmarks/service.py --seconds 4 --rounds 3

Needs wrk (https://github.com/wg/wrk). Both servers run all the time, one process each; every round asks each of them in a
shuffled order, and a ratio is of one round. The machine's other work is part of every figure: compare ratios. Prints also
what the command line's start takes, in CPU time; one warm estimate and its peers are engine_speed.py's.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from loralens.core import catalogue

HELLO = """
from fastapi import FastAPI
app = FastAPI()
@app.get("/hello")
async def hello() -> dict[str, str]:
    return {"hello": "world"}
"""
NEW = """
local n = tonumber(os.getenv("FIRST"))
wrk.method, wrk.headers["content-type"] = "POST", "application/json"
request = function()
  n = n + 1
  return wrk.format(nil, nil, nil, (os.getenv("BODY"):gsub("NUMBER", tostring(n))))
end
"""
POST = """
wrk.method, wrk.headers["content-type"], wrk.body = "POST", "application/json", os.getenv("BODY")
"""
FAMILIES = ("llama-2-7b", "qwen2.5-0.5b", "gpt2", "mixtral-8x7b", "gemma-2-9b")
STARTED = {"memory": ["memory", "7B", "--method", "lora"], "gpus": ["gpus"], "fit": ["fit", "7B", "--gpu", "rtx-4090"]}
UNITS = {"us": 1e-3, "ms": 1, "s": 1e3, "m": 6e4}


@dataclass(frozen=True)
class Row:
    """What is asked: a path, a script for wrk, and what the script reads."""

    name: str
    path: str
    script: str = ""
    body: str = ""
    goal: str = ""


@dataclass(frozen=True)
class Found:
    """Of one run of wrk: answers a second, the 99th percentile in milliseconds, and answers that were no 2xx."""

    rate: float
    slowest: float
    refused: int


def body_of(model: str, varied: str | None) -> str:
    """A request with a config; `varied` is a field whose value is given by wrk's script."""
    config = dict(catalogue.model(model).config)
    if varied is None:
        return json.dumps({"config": config, "method": "lora"})
    return json.dumps({"config": config | {varied: "NUMBER"}, "method": "lora"}).replace('"NUMBER"', "NUMBER")


def rows() -> list[Row]:
    """Every row but the hello."""
    one = "/api/memory?model=llama-2-7b&method=lora"
    return [
        Row("GET /api/health", "/api/health"),
        Row("GET one method", one, goal="0.5 of hello"),
        Row("GET one method, If-None-Match", one, script="ETAG"),
        Row("GET three methods", "/api/memory?model=llama-2-7b"),
        Row("POST a known config", "/api/memory", POST, body_of("llama-2-7b", None), "0.35 of hello"),
        Row("POST a config never seen", "/api/memory", NEW, body_of("llama-2-7b", "intermediate_size"), "150/s, p99 100 ms"),
        *(
            Row(f"  the same, {name}", "/api/memory", NEW, body_of(name, "vocab_size"))
            for name in FAMILIES
        ),
    ]  # fmt: skip


def asked(address: str, row: Row, seconds: int, connections: int) -> Found:
    """One run of wrk."""
    script = row.script
    if script == "ETAG":
        tag = httpx.get(address + row.path).headers["etag"]
        script = f"wrk.headers['if-none-match'] = {tag!r}"
    first = str(random.randrange(10_000, 4_000_000))
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "30s"]
        command += ["-s", file.name] if script else []
        variables = {**os.environ, "BODY": row.body, "FIRST": first}
        done = subprocess.run([*command, address + row.path], env=variables, capture_output=True, text=True, check=True)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    slowest = re.search(r"99%\s+([\d.]+)(us|ms|s|m)\b", done.stdout)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    assert rate, done.stdout
    assert slowest, done.stdout
    return Found(
        float(rate[1]), float(slowest[1]) * UNITS[slowest[2]], int(refused[1]) if refused else 0
    )  # fmt: skip


@contextmanager
def serving(command: list[str], directory: str, path: str, port: int) -> Iterator[str]:
    """A server, from when it answers."""
    variables = {**os.environ, "LORALENS_STATE_DIR": directory, "LORALENS_HUB": "off", "LORALENS_LOG_LEVEL": "warning"}
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, env=variables, cwd=directory, stdout=subprocess.DEVNULL) as server:
        try:
            for _ in range(600):
                try:
                    httpx.get(address + path)
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            yield address
        finally:
            server.terminate()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def cold_starts(count: int) -> dict[str, float]:
    """CPU seconds of verbs in a process of their own, and of a Python that does nothing; medians. Compiled modules are kept."""
    own = [sys.executable, "-m", "loralens"]
    commands = {"python": [sys.executable, "-c", ""]} | {name: [*own, *words] for name, words in STARTED.items()}
    samples: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as kept:
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        variables["PYTHONPYCACHEPREFIX"] = kept
        for number in range(count + 1):
            for name, command in commands.items():
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=variables)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                if number:  # the first compiles
                    samples[name].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {name: statistics.median(values) for name, values in samples.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    given = parser.parse_args()
    starts = cold_starts(7)
    print(f"start of Python alone: {starts.pop('python'):.3f} s of CPU")
    for name, seconds in starts.items():
        print(f"start of loralens {' '.join(STARTED[name])}: {seconds:.3f} s of CPU   goal 0.15")
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed: apt install wrk, or brew install wrk")
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    hello = Row("bare hello (async, FastAPI, uvicorn)", "/hello")
    wanted = [row for row in rows() if given.only in row.name]
    found: dict[str, list[Found]] = {row.name: [] for row in (hello, *wanted)}
    ratios: dict[str, list[float]] = {row.name: [] for row in wanted}
    ports = free_port(), free_port()
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "hello.py").write_text(HELLO, encoding="utf-8")
        bare = [sys.executable, "-m", "uvicorn", "hello:app", "--port", str(ports[0]), "--log-level", "warning"]
        bare += ["--no-access-log"]
        own = [sys.executable, "-m", "loralens", "serve", "--port", str(ports[1])]
        with (
            serving(bare, directory, "/hello", ports[0]) as first,
            serving(own, directory, "/api/health", ports[1]) as second,
        ):
            for row in wanted:  # workers have imported what they need, known answers are known
                asked(second, row, 1, given.connections)
            for _ in range(given.rounds):
                one = asked(first, hello, given.seconds, given.connections)
                found[hello.name].append(one)
                for row in random.sample(wanted, len(wanted)):
                    other = asked(second, row, given.seconds, given.connections)
                    found[row.name].append(other)
                    ratios[row.name].append(other.rate / one.rate)
    for row in (hello, *wanted):
        all_of_it = found[row.name]
        rate, slowest = (
            statistics.median(values) for values in zip(*((f.rate, f.slowest) for f in all_of_it), strict=True)
        )
        ratio = f"{statistics.median(ratios[row.name]):7.3f} of hello" if row.name in ratios else " " * 16
        refused = sum(f.refused for f in all_of_it)
        tail = f"   goal {row.goal}" if row.goal else ""
        tail += f"   {refused} NOT ANSWERED" if refused else ""
        print(f"{row.name:40} {rate:9.0f}/s {ratio}   p99 {slowest:7.1f} ms{tail}")
    print(f"load after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
