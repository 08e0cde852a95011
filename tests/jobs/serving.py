"""A real server in its own process, for tests that kill it."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Server:
    def __init__(self, state, *words, jobs_at=None, largest_file_bytes=None, log_to=None, **settings):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        path = [str(ROOT / "backend"), *([str(jobs_at)] if jobs_at else [])]
        environment = {
            **os.environ,
            "LORALENS_STATE_DIR": str(state),
            "PYTHONPATH": os.pathsep.join(path),
            "OMP_NUM_THREADS": "1",
            **{f"LORALENS_{name.upper()}": str(value) for name, value in settings.items()},
        }
        command = [sys.executable, "-m", "loralens", "serve", "--port", str(self.port), *words]
        if largest_file_bytes is not None:  # the soft limit only: it can be raised while the server runs
            command = ["bash", "-c", f'ulimit -S -f {largest_file_bytes // 1024} && exec "$@"', "server", *command]
        self.process = subprocess.Popen(
            command, env=environment, stdout=log_to or subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self._wait_until_it_answers()

    def _wait_until_it_answers(self):
        pause = threading.Event()
        for _ in range(600):
            try:
                self.get("/api/health")
                return
            except (urllib.error.URLError, ConnectionError):
                assert self.process.poll() is None, self.process.stdout and self.process.stdout.read()
                pause.wait(0.1)
        raise AssertionError("the server does not answer")

    def request(self, method, path, body=None, headers=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json", **(headers or {})}
        request = urllib.request.Request(self.address + path, data, headers, method=method)
        return urllib.request.urlopen(request, timeout=120)

    def get(self, path):
        with self.request("GET", path) as response:
            return json.load(response)

    def post(self, path, body):
        with self.request("POST", path, body) as response:
            return json.load(response)

    def delete(self, path):
        with self.request("DELETE", path) as response:
            return json.load(response)

    def problem(self, method, path, body=None):
        """The problem body of a request that must fail."""
        try:
            self.request(method, path, body).close()
        except urllib.error.HTTPError as error:
            with error:
                assert error.headers["content-type"].startswith("application/problem+json")
                return json.load(error)
        raise AssertionError(f"{method} {path} did not fail")

    def events(self, path, last_event_id=None, stop=lambda event: False):
        """Server-sent events as dicts {event, id, data}; ends with the stream, or after the first that `stop` likes."""
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        with self.request("GET", path, headers=headers) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            event = {}
            for raw in response:
                line = raw.decode().rstrip("\n")
                if line.startswith(":"):
                    continue
                if line:
                    name, _, value = line.partition(": ")
                    event[name] = json.loads(value) if name == "data" else value
                elif event:
                    yield event
                    if stop(event):
                        return
                    event = {}

    def kill(self, with_signal=signal.SIGKILL):
        self.process.send_signal(with_signal)
        self.process.wait(timeout=30)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def close(self):
        if self.process.poll() is None:
            self.kill(signal.SIGTERM)
