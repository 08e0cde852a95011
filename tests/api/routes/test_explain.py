"""`/api/explain` and memory snapshots on the real server."""

from __future__ import annotations

import io
import json
import pickle

import httpx
import pytest
from conftest import running
from trainers.test_snapshot import snapshot

from loralens.settings import Settings

TEXT = "CUDA out of memory. Tried to allocate 4.64 GiB. GPU 0 has a total capacity of 12.00 GiB"
SET_UP = {"model": "qwen2.5-0.5b", "method": "lora", "recipe": {"micro_batch_size": 4, "sequence_length": 2048}}


def send(client, content, **fields):
    files = {"snapshot": ("memory.pickle", io.BytesIO(content))}
    return client.post("/api/explain/snapshot", files=files, data=fields)


def test_a_message_names_the_tensor(client):
    answer = client.post("/api/explain", json={"text": TEXT, **SET_UP}).json()
    assert answer["tensors"][0]["bytes"] == 4 * 2048 * 151936 * 4
    assert answer["changes"]


def test_a_snapshot_is_read_with_and_without_the_set_up(client):
    content = snapshot([(151936 * 896 * 2, []), (4096, [])]).getvalue()
    alone = send(client, content).json()
    assert (alone["blocks"], alone["terms"]) == (2, [])
    matched = send(client, content, set_up=json.dumps(SET_UP)).json()
    assert matched["terms"][0]["bytes"] == 151936 * 896 * 2
    assert matched["allocated_bytes"] == alone["allocated_bytes"]


class Evil:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("content", "fields", "status", "says"),
    [
        (pickle.dumps(Evil(), 4), {}, 422, "more than lists, dicts, numbers and text"),
        (b"", {}, 422, "ends in the middle"),
        (b"PK\x03\x04 no pickle", {}, 422, "no pickle"),
        (pickle.dumps([1], 4), {}, 422, "no segments"),
        (pickle.dumps({"segments": []}, 4), {"set_up": "[]"}, 422, "object"),
        (pickle.dumps({"segments": []}, 4), {"set_up": "{"}, 422, "set_up"),
        (pickle.dumps({"segments": []}, 4), {"set_up": '{"path": "/etc/passwd"}'}, 422, "unknown field"),
        (pickle.dumps({"segments": []}, 4), {"set_up": '{"model": "no-such"}'}, 404, "no-such"),
        (pickle.dumps({"segments": []}, 4), {"path": "/etc/passwd"}, 422, "unknown field"),
    ],
)
def test_what_is_no_snapshot_is_refused(client, content, fields, status, says):
    answer = send(client, content, **fields)
    assert answer.status_code == status
    assert says in answer.json()["detail"]


def test_other_bodies_are_refused(client):
    assert client.post("/api/explain/snapshot", json={"path": "/etc/passwd"}).status_code == 415
    assert client.post("/api/explain/snapshot", data={"snapshot": "text"}, files={"x": b""}).status_code == 422


def test_a_snapshot_is_bounded(tmp_path):
    with (
        running(Settings(state_dir=tmp_path, max_snapshot_bytes=100_000)) as address,
        httpx.Client(base_url=address) as client,
    ):
        answer = send(client, b"\x80\x04" + b"N" * (3 * 2**20))
    assert answer.status_code == 413
    assert answer.json()["status"] == 413
