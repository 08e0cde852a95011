"""Jobs over HTTP, with a real server process: follow, resume, cancel, kill, and start again."""

import os
import resource
import sys
import threading
from pathlib import Path

import pytest
from jobs.serving import Server

ENDLESS = {"in_features": 256, "out_features": 256, "seconds": 600, "variants": ["addmm"], "cache": "hot"}
SHORT = {**ENDLESS, "seconds": 0.5}
LONG = {**ENDLESS, "in_features": 2048, "out_features": 2048, "tokens": 128}  # its 400 rounds take half a minute


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("state"))
    yield server
    server.close()


def gone(pid):
    """Wait until a process has ended, at most 10 s."""
    pause = threading.Event()
    for _ in range(1000):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
            if stat.read().rpartition(")")[2].split()[0] == "Z":
                return True
        pause.wait(0.01)
    return False


def children_of(pid):
    """The processes in which the server runs jobs; it has others, that compute answers."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
        with open(f"/proc/{pid}/task/{task}/children") as children:  # noqa: PTH123
            found += [int(child) for child in children.read().split()]
    return sorted({child for child in found if b"loralens.jobs.child" in command_of(child)})


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


def test_a_benchmark_runs_from_start_to_result_and_can_be_shared(served):
    started = served.post("/api/benchmarks", SHORT)
    assert started["status"] == "queued" and started["events"] == f"/api/jobs/{started['id']}/events"
    events = list(served.events(started["events"]))
    kinds = [event["event"] for event in events]
    assert kinds[-1] == "done" and {"started", "roofline", "point", "result"} <= set(kinds)
    numbered = [int(event["id"]) for event in events if "id" in event]
    assert numbered == list(range(1, len(numbered) + 1))
    job = served.get(f"/api/jobs/{started['id']}")
    assert job["status"] == "finished" and job["result"] == next(e for e in events if e["event"] == "result")["data"]
    assert started["id"] in [row["id"] for row in served.get("/api/jobs?kind=benchmark")["jobs"]]
    assert served.get(f"/api/benchmarks/{started['id']}") == job["result"]
    listed = next(run for run in served.get("/api/benchmarks")["runs"] if run["id"] == started["id"])
    best = job["result"]["points"][0]["recommendation"]
    assert (listed["status"], listed["measured"], listed["machine"]) == (
        "finished",
        1,
        job["result"]["machine"]["name"],
    )
    assert (listed["headline"]["variant"], listed["headline"]["low"]) == (best["variant"], best["ratio"])
    compared = served.get(f"/api/benchmarks/compare?a={started['id']}&b={started['id']}")
    assert {row["verdict"] for row in compared["points"][0]["rows"]} == {"same"}


def test_a_run_is_removed_for_good_and_only_when_it_has_ended(served):
    ended = served.post("/api/benchmarks", SHORT)["id"]
    running = served.post("/api/benchmarks", ENDLESS)["id"]
    assert served.problem("DELETE", f"/api/benchmarks/{running}")["code"] == "device_busy"
    list(served.events(f"/api/jobs/{ended}/events"))
    with served.request("DELETE", f"/api/benchmarks/{ended}") as response:
        assert response.status == 204
    assert served.problem("GET", f"/api/jobs/{ended}")["code"] == "job_not_found"
    assert ended not in [run["id"] for run in served.get("/api/benchmarks")["runs"]]
    assert served.problem("DELETE", f"/api/benchmarks/{ended}")["code"] == "job_not_found"
    served.delete(f"/api/jobs/{running}")
    list(served.events(f"/api/jobs/{running}/events"))


def test_a_client_comes_back_with_last_event_id_and_a_second_client_sees_everything(served):
    path = served.post("/api/benchmarks", SHORT)["events"]
    first = list(served.events(path, stop=lambda event: event["event"] == "started"))
    rest = list(served.events(path, last_event_id=first[-1]["id"]))
    everything = list(served.events(path))
    seen = [event for event in first + rest if "id" in event]
    assert seen == [event for event in everything if "id" in event]
    assert [event["event"] for event in (rest[-1], everything[-1])] == ["done", "done"]
    assert [event["event"] for event in served.events(path, last_event_id="not a number")][-1] == "done"
    assert [event["event"] for event in served.events(path, last_event_id="999999")] == ["done"]


def test_cancel_ends_a_run_and_the_next_one_that_waited_starts(served):
    running = served.post("/api/benchmarks", ENDLESS)
    assert any(
        event["event"] == "started"
        for event in served.events(running["events"], stop=lambda e: e["event"] == "started")
    )
    waiting = served.post("/api/benchmarks", SHORT)
    assert waiting["place"] == 1
    assert served.problem("POST", "/api/benchmarks?queue=false", SHORT)["code"] == "device_busy"
    queued = next(iter(served.events(waiting["events"])))
    assert (queued["event"], queued["data"]) == ("queued", {"place": 1})
    served.delete(f"/api/jobs/{running['id']}")
    last = list(served.events(running["events"]))[-1]
    assert (last["event"], last["data"]["status"]) == ("done", "cancelled")
    assert list(served.events(waiting["events"]))[-1]["data"]["status"] == "finished"


def test_a_killed_child_ends_the_stream_with_a_problem_and_the_service_stays(served):
    running = served.post("/api/benchmarks", ENDLESS)
    list(served.events(running["events"], stop=lambda event: event["event"] == "roofline"))
    (child,) = children_of(served.process.pid)
    os.kill(child, 9)
    last = list(served.events(running["events"]))[-1]
    assert last["event"] == "error"
    assert last["data"]["code"] == "job_failed" and "SIGKILL" in last["data"]["detail"]
    assert served.get(f"/api/jobs/{running['id']}")["last_event"] >= 3
    assert list(served.events(served.post("/api/benchmarks", SHORT)["events"]))[-1]["event"] == "done"


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("GET", "/api/jobs/nothing", None, "job_not_found"),
        ("GET", "/api/jobs/nothing/events", None, "job_not_found"),
        ("DELETE", "/api/jobs/nothing", None, "job_not_found"),
        ("GET", "/api/benchmarks/nothing", None, "job_not_found"),
        ("GET", "/api/jobs?limit=0", None, "invalid_input"),
        ("POST", "/api/benchmarks", {"rank": 0}, "invalid_input"),
        ("POST", "/api/benchmarks", [1], "invalid_input"),
        ("POST", "/api/benchmarks", {"alpha": float("nan")}, "invalid_input"),
        ("POST", "/api/benchmarks", {"seconds": float("inf")}, "invalid_input"),
        ("POST", "/api/benchmarks", {"device": "cuda:63"}, "device_unavailable"),
    ],
)
def test_every_bad_request_is_a_problem(served, method, path, body, code):
    assert served.problem(method, path, body)["code"] == code


def test_a_killed_server_leaves_a_store_that_the_next_one_reads(tmp_path):
    first = Server(tmp_path)
    running = first.post("/api/benchmarks", ENDLESS)
    waiting = first.post("/api/benchmarks", SHORT)
    list(first.events(running["events"], stop=lambda event: event["event"] == "roofline"))
    (child,) = children_of(first.process.pid)
    first.kill()
    assert gone(child), "the child outlived its server"
    second = Server(tmp_path)
    try:
        found = second.get(f"/api/jobs/{running['id']}")
        assert (found["status"], found["place"]) == ("interrupted", None)
        assert "died" in found["error"]["detail"]
        assert list(second.events(waiting["events"]))[-1]["data"]["status"] == "finished"
        events = list(second.events(running["events"]))
        assert {"started", "roofline"} <= {event["event"] for event in events}
        assert events[-1]["event"] == "error" and events[-1]["data"]["code"] == "job_failed"
        assert list(second.events(second.post("/api/benchmarks", SHORT)["events"]))[-1]["event"] == "done"
    finally:
        second.close()


def test_a_server_that_is_told_to_stop_leaves_in_time_with_a_stream_open(tmp_path):
    server = Server(tmp_path)
    running = server.post("/api/benchmarks", ENDLESS)
    stream = server.events(running["events"])
    next(event for event in stream if event["event"] == "roofline")  # what runs it is there by now
    (child,) = children_of(server.process.pid)
    server.kill(15)
    assert server.process.returncode is not None and gone(child)


def test_a_second_server_takes_the_device_of_a_killed_one_and_says_what_became_of_its_job(tmp_path):
    first, second = Server(tmp_path), Server(tmp_path)
    try:
        running = first.post("/api/benchmarks", LONG)
        list(first.events(running["events"], stop=lambda event: event["event"] == "roofline"))
        waiting = second.post("/api/benchmarks", SHORT)
        assert waiting["place"] == 1
        assert second.get(f"/api/jobs/{running['id']}")["status"] == "running"
        first.kill()
        assert list(second.events(waiting["events"]))[-1]["data"]["status"] == "finished"
        left = second.get(f"/api/jobs/{running['id']}")
        assert left["status"] == "interrupted" and left["last_event"] >= 3 and "died" in left["error"]["detail"]
    finally:
        first.close()
        second.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of a running process is raised as Linux does it")
def test_a_disk_that_fills_up_fails_the_job_and_not_the_server_and_the_next_one_runs(tmp_path):
    server = Server(tmp_path, largest_file_bytes=256 * 1024)
    try:
        running = server.post("/api/benchmarks", LONG)
        last = list(server.events(running["events"]))[-1]
        assert last["event"] == "error" and last["data"]["code"] == "storage_full"
        assert server.get(f"/api/jobs/{running['id']}")["status"] == "failed"
        assert server.problem("POST", "/api/benchmarks", SHORT)["code"] == "storage_full"
        assert server.get("/api/memory?model=7B")["estimates"]  # calculators need no store
        most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (most, most))  # as if files were deleted
        assert list(server.events(server.post("/api/benchmarks", SHORT)["events"]))[-1]["event"] == "done"
        assert server.get(f"/api/jobs/{running['id']}")["status"] == "failed"
    finally:
        server.close()
