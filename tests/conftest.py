"""What every test may rely on: no network beyond this machine, a clean environment, fixed seeds, one real server."""

from __future__ import annotations

import gc
import os
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
COLLECT = (50_000, 20, 50)

# derandomize: a run that fails fails again; the database would be a second, invisible source of examples.
settings.register_profile(
    "loralens", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("loralens")


def pytest_collection_finish() -> None:
    """A walk makes tens of thousands of objects that live for milliseconds: looking through all others less often for circles
    takes a fifth off it. What the imports left is looked through no more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(20_260)


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    """Connections leave this machine in no test."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to connect to {address}")
        connect(self, address)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        patch.setenv("HF_HUB_OFFLINE", "1")
        for name in [name for name in os.environ if name.startswith("LORALENS_")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real server with a small built page; its state is kept in a temporary folder."""
    from loralens.settings import Settings

    page = tmp_path_factory.mktemp("page")
    (page / "assets").mkdir()
    (page / "assets" / "app-1a2b3c.js").write_text("console.log('page')\n" * 200)
    (page / "index.html").write_text(
        "<!doctype html><title>LoRA Lens</title><script>document.title</script>"
        "<script src=/assets/app-1a2b3c.js></script>"
    )
    state = tmp_path_factory.mktemp("state")
    chosen = Settings(web_dir=page, state_dir=state, embed_origins="https://course.example")
    with running(chosen) as address:
        yield address


class running:
    """A uvicorn server on a free port in a thread; `with running(settings) as address`."""

    def __init__(self, chosen: object) -> None:
        import uvicorn

        from loralens.api.app import create_app

        self._socket = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(create_app(chosen), log_level="warning", timeout_graceful_shutdown=1)  # type: ignore[arg-type]
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        host, port = self._socket.getsockname()
        return f"http://{host}:{port}"

    def __exit__(self, *_: object) -> None:
        # The listening socket takes connections from the first moment, so a test never waits for a start.
        self._server.should_exit = True
        self._thread.join(timeout=20)
        assert not self._thread.is_alive(), "the server did not stop"
        self._socket.close()
