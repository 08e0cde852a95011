"""The image, built and brought up for real. Needs an engine: `pytest -m docker`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

pytestmark = [pytest.mark.docker, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
PROJECT = "loralens-test"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def compose(*words: str, port: int, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = ["docker", "compose", "-p", PROJECT, *words]
    environment = {**os.environ, "PORT": str(port)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800)
    assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    port = free_port()
    compose("build", port=port)
    try:
        compose("up", "-d", "--wait", "--wait-timeout", "90", port=port)
        yield f"http://localhost:{port}"
    finally:
        compose("down", "-v", port=port, check=False)


def test_it_serves_the_page_and_the_api(address):
    page = httpx.get(f"{address}/part2", headers={"accept": "text/html"})
    assert page.status_code == 200
    assert "<script" in page.text
    answer = httpx.get(f"{address}/api/memory?model=7B").json()
    assert answer["model"]["parameters"] == 6_738_415_616


def test_it_is_healthy_and_unprivileged(address):
    (container,) = compose("ps", "-q", port=0).stdout.split()
    seen = json.loads(
        subprocess.run(["docker", "inspect", container], capture_output=True, text=True, check=True).stdout
    )
    assert seen[0]["State"]["Health"]["Status"] == "healthy"
    assert seen[0]["Config"]["User"] == "10001:10001"
    assert seen[0]["HostConfig"]["PortBindings"]["5173/tcp"][0]["HostIp"] == "127.0.0.1"


def test_the_system_page_names_the_container(address):
    system = httpx.get(f"{address}/api/system").json()
    assert system["packages"]["torch"]
