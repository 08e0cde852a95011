"""The route on a real server: refused requests, recorded runs, and a job that starts, streams and is cancelled."""

from __future__ import annotations

import json

import httpx
import pytest


def test_recorded_runs_are_served(client: httpx.Client) -> None:
    answer = client.get("/api/forgetting/recorded")
    assert answer.status_code == 200
    runs = answer.json()["runs"]
    assert all(run["result"]["date"] and run["points"] for run in runs)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"budget": "huge"}, "budget"),
        ({"ranks": [0]}, "ranks"),
        ({"old_text": "only one"}, "new_text"),
        ({"old_text": "", "new_text": "x"}, "old_text"),
        ({"old_text": "a" * 30_000, "new_text": "b" * 30_000}, "old_text"),
        ({"old_text": "\u0000" * 30_000, "new_text": "b" * 30_000}, "old_text"),
        ({"state_dir": "/tmp"}, "state_dir"),
        ({"old_hash": "0" * 64, "new_hash": "1" * 64}, "old_text"),
    ],
)
def test_bad_requests_are_refused_at_once(client: httpx.Client, body: dict[str, object], field: str) -> None:
    answer = client.post("/api/forgetting", json=body)
    assert answer.status_code == 422
    problem = answer.json()
    assert (problem["code"], problem["field"]) == ("invalid_input", field)


def test_a_job_starts_streams_and_is_cancelled(client: httpx.Client) -> None:
    started = client.post("/api/forgetting", json={"budget": "quick", "fresh": True})
    assert started.status_code == 202
    job = started.json()
    with client.stream("GET", job["events"], timeout=120) as stream:
        kind = ""
        for line in stream.iter_lines():
            if line.startswith("event:"):
                kind = line.partition(":")[2].strip()
            if line.startswith("data:") and kind == "plan":
                plan = json.loads(line.partition(":")[2])
                break
    assert plan["budget_seconds"] == 60
    assert "state_dir" not in client.get(f"/api/jobs/{job['id']}").json()["spec"]
    assert client.delete(f"/api/jobs/{job['id']}").status_code == 200
    with client.stream("GET", job["events"], timeout=120) as stream:
        events = [line for line in stream.iter_lines() if line.startswith("event:")]
    assert events[-1] == "event: done"
    assert client.get(f"/api/jobs/{job['id']}").json()["status"] == "cancelled"
