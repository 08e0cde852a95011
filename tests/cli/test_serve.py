"""The server as a process: it says where it listens, ends on request, and says in one line why it cannot start."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys

import httpx
import pytest
from cli.conftest import ENVIRONMENT

from loralens.cli.serve import _listen


def start(*words: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "loralens", "serve", *words]
    variables = {**ENVIRONMENT, **environment}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_stops(how):
    with start("--port", "0") as process:
        try:
            first = process.stdout.readline()
            address = "http://localhost:" + first.split("http://localhost:")[1].split("/")[0].strip()
            assert httpx.get(f"{address}/api/health", timeout=30).json()["status"] == "ok"
        finally:
            process.send_signal(how)
            _, complaints = process.communicate(timeout=30)
    assert complaints == ""
    assert process.returncode in (0, -how, 128 + how)


def test_an_open_request_does_not_keep_it_and_leaves_no_traceback():
    with start("--port", "0", LORALENS_SHUTDOWN_SECONDS="1") as process:
        port = int(process.stdout.readline().split("http://localhost:")[1].split("/")[0])
        with socket.create_connection(("127.0.0.1", port)) as half_sent:
            head = "POST /api/memory HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9"
            half_sent.sendall(f"{head}\r\n\r\n{{".encode())
            # Answered after the first one was accepted: the server is in the middle of it.
            httpx.get(f"http://127.0.0.1:{port}/api/health", timeout=60)
            process.send_signal(signal.SIGTERM)
            _, complaints = process.communicate(timeout=60)
    assert complaints == ""


def test_a_taken_port_is_one_line(loralens_command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = loralens_command("serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot listen on 127.0.0.1:")
    assert "hint: " in done.stderr


def test_a_wrong_setting_names_its_variable(monkeypatch):
    environment = {**ENVIRONMENT, "LORALENS_MAX_DEPTH": "many"}
    command = [sys.executable, "-m", "loralens", "serve", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 2
    assert "LORALENS_MAX_DEPTH" in done.stderr
    assert "Traceback" not in done.stderr


def test_answers_are_sent_at_once():
    """A body in a second packet would otherwise wait for the first to be acknowledged: 40 ms."""

    async def accepted() -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        class Asked(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                inner = transport.get_extra_info("socket")
                found.set_result(inner.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

        async with await asyncio.get_running_loop().create_server(Asked, sock=_listen("127.0.0.1", 0)) as server:
            with socket.create_connection(server.sockets[0].getsockname()):
                return await found

    assert asyncio.run(accepted()) == 1
