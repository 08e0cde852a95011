"""The route on a real server: refused requests, and one job at a time that starts, tells its cases and is cancelled."""

from __future__ import annotations

import json

import httpx
import pytest


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [({"device": "cuda:9"}, 503, "device"), ({"threads": 0}, 422, "threads"), ({"folder": "/tmp"}, 422, "folder")],
)
def test_bad_requests_are_refused_at_once(
    client: httpx.Client, body: dict[str, object], status: int, field: str
) -> None:
    answer = client.post("/api/calibrations", json=body)
    assert (answer.status_code, answer.json()["field"]) == (status, field)


def test_one_job_at_a_time_times_steps(client: httpx.Client) -> None:
    job = client.post("/api/calibrations", json={}).json()
    assert client.post("/api/calibrations", json={"threads": 1}).json()["id"] == job["id"]
    assert client.get("/api/calibrations").json()["running"] == job["id"]
    kind = ""
    with client.stream("GET", job["events"], timeout=120) as stream:
        for line in stream.iter_lines():
            if line.startswith("event:"):
                kind = line.partition(":")[2].strip()
            if line.startswith("data:") and kind in ("case", "error"):
                told = json.loads(line.partition(":")[2])
                break
    assert kind == "case", told
    assert told["seconds"] > 0
    assert client.delete(f"/api/jobs/{job['id']}").status_code in (200, 202, 204)
