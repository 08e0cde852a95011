"""Whether the lab can be used: said by every endpoint that needs it, by a real server while nothing of it is there yet."""

from __future__ import annotations

import json
import subprocess
import sys

import httpx
import pytest
from installation.conftest import ENVIRONMENT

from loralens.core.errors import DependencyMissing, LabInstalling
from loralens.installation import state
from loralens.jobs.locks import FileLock, is_held

NOBODYS = ("a-package-that-nobody-has",)
NEEDS_LAB = [
    ("POST", "/api/benchmarks", {}),
    ("POST", "/api/forgetting", {}),
    ("POST", "/api/traces", {"model": "7B"}),
    ("GET", "/api/adapters", None),
    ("POST", "/api/adapters/train", {}),
    ("POST", "/api/adapters/switch", {"adapter": None}),
    ("GET", "/api/adapters/generate?prompt=x", None),
    ("POST", "/api/adapters/inspect", None),
]
WORKS = ["/api/memory?model=7B", "/api/benchmarks", "/api/benchmarks/variants", "/api/forgetting/recorded", "/api/jobs"]


@pytest.fixture(scope="module")
def installing(tmp_path_factory):
    """A server in whose state folder somebody installs the lab."""
    folder = tmp_path_factory.mktemp("state")
    holder = state.lock(folder)
    assert holder.acquire()
    state.write(
        folder, state.InstallProgress(downloaded_bytes=412_000_000, file="torch", file_bytes=1, file_total_bytes=2)
    )
    server = subprocess.Popen(
        [sys.executable, "-m", "loralens", "serve", "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**ENVIRONMENT, "LORALENS_STATE_DIR": str(folder)},
    )  # fmt: skip
    port = int(server.stdout.readline().split("http://localhost:")[1].split("/")[0])
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        yield client, folder, holder
    server.terminate()
    assert server.communicate(timeout=60)[1] == ""
    holder.release()


def test_how_far_it_is(installing):
    client, _, _ = installing
    now = client.get("/api/lab").json()
    assert (now["status"], now["phase"], now["downloaded_bytes"], now["file"]) == (
        "installing", "downloading", 412_000_000, "torch",
    )  # fmt: skip
    system = client.get("/api/system").json()
    assert system["lab"] | {"seconds": 0} == now | {"seconds": 0}


@pytest.mark.parametrize(("method", "path", "body"), NEEDS_LAB)
def test_what_needs_it_says_so(installing, method, path, body):
    client, _, _ = installing
    if path == "/api/adapters/inspect":
        answer = client.post(path, files={"config": b"{}", "weights": b""})
    else:
        answer = client.request(method, path, json=body)
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == LabInstalling.code
    assert "412 MB" in answer.json()["detail"] and answer.json()["hint"]


@pytest.mark.parametrize("path", WORKS)
def test_everything_else_works(installing, path):
    assert installing[0].get(path).status_code == 200


def test_it_comes_alive_without_a_restart(tmp_path, installing):
    client, folder, holder = installing
    holder.release()
    state.forget(folder)
    try:
        assert client.get("/api/lab").json()["status"] == "ready"
        assert client.get("/api/adapters").json()["status"] == "not_trained"
    finally:
        assert holder.acquire()
        state.write(folder, state.InstallProgress(downloaded_bytes=412_000_000, file="torch"))


def test_nothing_of_it_and_nobody_who_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr(state, "PACKAGES", NOBODYS)
    now = state.answer(tmp_path)
    assert (now["status"], now["phase"], now["failure"]) == ("missing", None, None)
    assert now["hint"].startswith("pip install ") or now["hint"] == "./start.sh lab"
    assert state.answer(tmp_path, wanted=False)["status"] == "off"
    # `require` asks nobody when torch has been imported already.
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with pytest.raises(DependencyMissing, match="needs PyTorch"):
        state.require(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"of": "another version"})])
def test_a_file_that_cannot_be_read_is_none(tmp_path, monkeypatch, text):
    monkeypatch.setattr(state, "PACKAGES", NOBODYS)
    (tmp_path / "lab.json").write_text(text)
    assert state.answer(tmp_path)["status"] == "missing"


def test_looking_at_a_lock_does_not_take_it(tmp_path):
    path = tmp_path / "lab.lock"
    assert not is_held(path)
    assert not path.exists()
    lock = FileLock(path)
    assert lock.acquire()
    assert is_held(path)
    lock.release()
    assert not is_held(path)
    assert path.exists()
