"""Work has a cost that is known before, a deadline and a place of its own; who asks for little does not wait for who asks for much."""

from __future__ import annotations

import asyncio
import json
import statistics
import threading
import time
from typing import Any

import httpx
import pytest
from jobs.serving import Server

from loralens.api.compute import Lane
from loralens.core import catalogue
from loralens.core.errors import LoraLensError

SMALL = {**json.loads(json.dumps(dict(catalogue.model("7B").config))), "hidden_size": 256, "intermediate_size": 512}


def deep(layers: int) -> dict[str, Any]:
    return {**SMALL, "num_hidden_layers": layers}


@pytest.fixture(scope="module")
def base(served: Server) -> str:
    """A server whose workers are up."""
    httpx.post(f"{served.address}/api/fit", json={"model": "7B", "gpu": "t4"}, timeout=120)
    httpx.post(f"{served.address}/api/memory", json={"model": "7B"}, timeout=120)
    return served.address


def test_a_simulation_that_costs_too_much_is_refused_before_it_begins(base: str) -> None:
    answer = httpx.post(
        f"{base}/api/memory",
        json={"config": deep(2_000), "method": "lora", "allocator": "simulated"},
        timeout=60,
    )
    assert answer.status_code == 413
    problem = answer.json()
    assert problem["code"] == "input_too_large"
    assert "22,000 layer passes" in problem["detail"]
    assert "16,000" in problem["detail"]
    assert "--allocator simulated" in problem["hint"]


def hybrid(layers: int) -> dict[str, Any]:
    """A model whose layers loop over the sequence."""
    config: dict[str, Any] = dict(catalogue.model("qwen3-next-80b-a3b").config)
    return {name: value for name, value in config.items() if name != "layer_types"} | {"num_hidden_layers": layers}


def test_to_write_down_more_tensors_than_is_allowed_is_refused_before_it_begins(base: str) -> None:
    asked = {"config": hybrid(2_000), "method": "lora"}
    answer = httpx.post(f"{base}/api/lifetimes", json=asked, timeout=60)
    assert answer.status_code == 413
    problem = answer.json()
    assert problem["code"] == "input_too_large"
    assert "70,000 layer passes" in problem["detail"]
    assert "num_hidden_layers" in problem["hint"]
    text = "CUDA out of memory. Tried to allocate 1.16 GiB"
    explained = httpx.post(f"{base}/api/explain", json=asked | {"text": text}, timeout=60)
    assert explained.status_code == 200
    assert "70,000 layer passes" in " ".join(explained.json()["notes"])
    assert explained.json()["tensors"] == []
    assert explained.json()["peak_allocated_bytes"] > 0


def test_a_sweep_over_numbers_that_no_machine_has_is_bounded(base: str) -> None:
    huge = {"micro_batch_size": list(range(60_000, 60_100)), "sequence_length": list(range(16_000_000, 16_000_100))}
    answer = httpx.post(f"{base}/api/sweep", json={"model": "70b", "method": "full", "sweep": huge}, timeout=60)
    assert answer.status_code == 413
    assert answer.json()["field"] == "sweep"


def test_health_and_short_answers_do_not_wait_for_long_work_and_what_is_too_much_is_told(base: str) -> None:
    def median_seconds() -> float:
        found = []
        for _ in range(15):
            begun = time.perf_counter()
            assert httpx.get(f"{base}/api/health", timeout=60).status_code == 200
            found.append(time.perf_counter() - begun)
        return statistics.median(found)

    idle = median_seconds()
    answers: list[httpx.Response] = []

    def ask(index: int) -> None:
        body = {
            "config": deep(30 + index),
            "method": "lora",
            "allocator": "simulated",
            "recipe": {"padded": True, "sequence_length": 512},
        }
        answers.append(httpx.post(f"{base}/api/memory", json=body, timeout=300))

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(20)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    busy = median_seconds()
    short = httpx.post(f"{base}/api/memory", json={"config": deep(7), "method": "lora"}, timeout=60)
    still = sum(thread.is_alive() for thread in threads)
    assert short.status_code == 200
    assert still, "the short answer came first"
    assert busy <= 5 * max(idle, 0.02), (idle, busy)
    for thread in threads:
        thread.join()
    statuses = sorted(answer.status_code for answer in answers)
    assert len(statuses) == 20
    assert set(statuses) <= {200, 429, 503}
    assert 429 in statuses, "the queue is bounded"
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["code"] == "overloaded"
    assert 1 <= int(refused.headers["retry-after"]) <= 60


def test_an_answer_carries_a_tag_and_is_not_sent_twice(base: str) -> None:
    with httpx.Client(base_url=base) as client:
        first = client.get("/api/memory?model=7B&method=lora")
        again = client.get("/api/memory?model=7B&method=lora")
        assert first.content == again.content
        assert first.headers["etag"] == again.headers["etag"]
        same = client.get("/api/memory?model=7B&method=lora", headers={"if-none-match": first.headers["etag"]})
        assert (same.status_code, same.content) == (304, b"")
        plain = client.get("/api/memory?model=7B&method=lora", headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.content == first.content
        other = client.get("/api/memory?model=7B&method=full")
        assert other.headers["etag"] != first.headers["etag"]
        posted = client.post("/api/memory", json={"model": "7B", "method": "lora"})
        assert posted.json() == first.json()
        wrong = client.get("/api/memory?model=nope")
        assert wrong.status_code == 404
        assert "etag" not in wrong.headers


class Visitor:
    """All of a request that a lane looks at: when its client leaves, if ever."""

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds

    async def receive(self) -> dict[str, Any]:
        if self._seconds is None:
            await asyncio.Event().wait()
        await asyncio.sleep(self._seconds or 0)
        return {"type": "http.disconnect"}


def workers_of(lane: Lane) -> set[int]:
    """The process ids of a lane's workers."""
    return set(lane._pool._pool_manager.worker_manager.workers)  # type: ignore[union-attr]


def test_work_ends_when_its_client_leaves() -> None:
    """The next answer comes from another worker: the one that was at it did not do it to the end."""
    lane = Lane("one", workers=1, most_waiting=5, deadline_seconds=60, niceness=0)

    async def visits() -> None:
        body = {"config": deep(4), "method": "lora"}
        assert isinstance(await lane.run(Visitor(), "memory", body), bytes)  # type: ignore[arg-type]
        before = workers_of(lane)
        long = {"config": deep(1_400), "method": "lora", "allocator": "simulated"}  # close to the most that is allowed
        assert await lane.run(Visitor(0.1), "memory", long) is None  # type: ignore[arg-type]
        assert isinstance(await lane.run(Visitor(), "memory", body), bytes)  # type: ignore[arg-type]
        assert not workers_of(lane) & before

    lane.start()
    try:
        asyncio.run(visits())
    finally:
        lane.stop()


def test_clients_that_leave_at_once_do_not_stop_workers_that_are_soon_done() -> None:
    """Each stop costs the start of a new worker: more than the answer."""
    lane = Lane("one", workers=1, most_waiting=5, deadline_seconds=60, niceness=0)

    async def visits() -> None:
        body = {"config": deep(4), "method": "lora"}
        assert isinstance(await lane.run(Visitor(), "memory", body), bytes)  # type: ignore[arg-type]
        before = workers_of(lane)
        for number in range(5, 25):
            body = {"config": deep(number), "method": "lora"}
            assert not isinstance(await lane.run(Visitor(0.001), "memory", body), tuple)  # type: ignore[arg-type]
        assert isinstance(await lane.run(Visitor(), "memory", {"config": deep(30), "method": "lora"}), bytes)  # type: ignore[arg-type]
        assert workers_of(lane) == before

    lane.start()
    try:
        asyncio.run(visits())
    finally:
        lane.stop()


def test_what_has_waited_as_long_as_it_may_be_computed_for_is_sent_away() -> None:
    """Of three long questions to one worker the last cannot have begun when its second is over."""
    lane = Lane("one", workers=1, most_waiting=5, deadline_seconds=1, niceness=0)

    async def ask(number: int) -> str:
        body = {"config": deep(400 + number), "method": "lora", "allocator": "simulated"}
        try:
            await lane.run(Visitor(), "memory", body)  # type: ignore[arg-type]  # all of a request that a lane looks at
        except LoraLensError as error:
            return error.code
        return "answered"

    async def three() -> list[str]:
        return await asyncio.gather(*(ask(number) for number in range(3)))

    lane.start()
    try:
        assert asyncio.run(three())[-1] == "overloaded"
    finally:
        lane.stop()
    assert lane.under_way == 0
