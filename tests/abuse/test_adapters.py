"""Adapters that people bring are looked into elsewhere than in the process that answers."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import httpx
import pytest
from abuse.test_clients import adapter_files
from api.checks import problem
from jobs.serving import Server

from loralens.api.adapter_work import MAX_WAITING, AdapterWork
from loralens.core.errors import Unavailable
from loralens.settings import Settings

SHAPES = {"base_model.model.q_proj.lora_A.weight": (8, 64), "base_model.model.q_proj.lora_B.weight": (64, 8)}


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1] / "jobs"))
    made = AdapterWork(Settings(state_dir=tmp_path))
    yield made
    made.close()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_the_server_imports_no_torch_for_an_upload(tmp_path):
    server = Server(tmp_path)
    try:
        answer = httpx.post(f"{server.address}/api/adapters/uploads", files=adapter_files(SHAPES), timeout=300)
        assert answer.status_code == 201 and answer.json()["rank"] == 8
        kept = f"{server.address}/api/adapters/kept/{answer.json()['id']}"
        assert httpx.get(kept, timeout=60).json() == answer.json()
        assert httpx.get(f"{kept}/download", timeout=60).status_code == 200
        files = adapter_files(SHAPES)
        broken = httpx.post(
            f"{server.address}/api/adapters/inspect", files={**files, "weights": ("w", b"\x80\x04pickle")}, timeout=60
        )
        assert "pickle" in problem(broken, 422)["detail"]
        assert httpx.delete(kept, timeout=60).status_code == 204
        assert "libtorch" not in Path(f"/proc/{server.process.pid}/maps").read_text()
        assert not list(tmp_path.glob(".arriving-*"))
    finally:
        server.close()


def test_what_takes_too_long_is_ended_and_the_next_is_served(work):
    with pytest.raises(Unavailable, match="longer than") as late:
        work.run("job_functions:endless", {}, seconds=0.2)
    assert "loralens adapter" in late.value.hint
    with pytest.raises(Unavailable, match="longer than"):
        work.run("job_functions:deaf", {}, seconds=0.2)


def test_no_more_wait_than_there_are_places(work):
    refused: list[str] = []

    def ask():
        try:
            work.run("job_functions:endless", {}, seconds=0.2)
        except Unavailable as error:
            refused.append(error.message)

    threads = [threading.Thread(target=ask) for _ in range(MAX_WAITING + 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("being looked into" in message for message in refused) >= 1
    assert len(refused) == MAX_WAITING + 2
