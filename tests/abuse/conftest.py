"""What is done to the service here is done to a real server in its own process."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from jobs.serving import Server


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that leave it as it was."""
    server = Server(tmp_path_factory.mktemp("state"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def client(served: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.address, timeout=60) as opened:
        yield opened
