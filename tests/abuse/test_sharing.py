"""Many people on one server: who may call, how much one may ask for, and whose jobs one sees."""

from __future__ import annotations

import http.client
import mmap
import socket
import threading

import httpx
import pytest
from api.checks import problem
from jobs.serving import Server
from starlette.datastructures import Headers

from loralens.api.hosts import from_another_site
from loralens.limits import Bounds, Limits, client_key, new_file
from loralens.settings import Settings

TOKEN = "a-token-of-the-class-2026"
SMALL = {"in_features": 256, "out_features": 256, "seconds": 0.5, "variants": ["addmm"], "cache": "hot"}
BOUNDS = Bounds(rate=10.0, burst=5, requests=3, streams=2)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Two workers, a token, and bounds that a test can reach."""
    page = tmp_path_factory.mktemp("page")
    (page / "index.html").write_text("<!doctype html><title>LoRA Lens</title>")
    more = {"client_rate": 5, "client_burst": 40, "client_jobs": 3, "client_streams": 2}
    state = tmp_path_factory.mktemp("state")
    server = Server(state, "--workers", "2", web_dir=page, shared="on", token=TOKEN, **more)
    yield server
    server.close()


@pytest.fixture
def visitor(shared):
    """A browser of its own: cookies, and patience where it was asked for some."""
    with httpx.Client(base_url=shared.address, headers={"authorization": f"Bearer {TOKEN}"}, timeout=60) as opened:
        yield opened


def patiently(ask):
    """The answer, after as many pauses as Retry-After asks for."""
    pause = threading.Event()
    for _ in range(100):
        answer = ask()
        if answer.status_code != 429:
            return answer
        pause.wait(float(answer.headers["retry-after"]))
    raise AssertionError("refused for ever")


def ended(visitor, job):
    """Cancel a job and wait until it no longer counts."""
    pause = threading.Event()
    patiently(lambda: visitor.delete(f"/api/jobs/{job}"))
    while patiently(lambda: visitor.get(f"/api/jobs/{job}")).json()["status"] in ("queued", "running"):
        pause.wait(0.2)


# Sites


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({"host": "10.0.0.4:5173"}, False),
        ({"host": "10.0.0.4:5173", "origin": "http://10.0.0.4:5173"}, False),
        ({"host": "lens.example", "origin": "https://lens.example"}, False),
        ({"host": "127.0.0.1:5173", "origin": "https://known.example"}, False),
        ({"host": "10.0.0.4:5173", "origin": "http://10.0.0.4:8000"}, True),
        ({"host": "10.0.0.4:5173", "origin": "http://evil.example"}, True),
        ({"host": "10.0.0.4:5173", "origin": "null"}, True),
        ({"host": "10.0.0.4:5173", "origin": "http://[::1"}, True),
        ({"host": "localhost:5173", "origin": "http://localhost:5173", "sec-fetch-site": "cross-site"}, True),
        ({"host": "localhost:5173", "sec-fetch-site": "same-site"}, True),
        ({"host": "localhost:5173", "origin": "http://localhost:5174", "sec-fetch-site": "same-origin"}, False),
        ({"host": "localhost:5173", "sec-fetch-site": "none"}, False),
    ],
    ids=str,
)
def test_whose_page_sent_it(headers, foreign):
    assert from_another_site(Headers(headers), ("Known.example",)) is foreign


@pytest.mark.parametrize("origin", ["http://evil.example", "null"])
def test_a_form_of_another_site_uploads_nothing(client, origin):
    files = {"config": ("adapter_config.json", b"{}"), "weights": ("adapter_model.safetensors", b"")}
    body = problem(client.post("/api/adapters/uploads", files=files, headers={"origin": origin}), 403)
    assert body["field"] == "origin"
    problem(client.post("/api/adapters/measure", headers={"origin": origin}), 403)


@pytest.mark.parametrize("destination", ["image", "script", "iframe", "empty"])
def test_a_picture_on_another_site_costs_nothing(client, destination):
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-dest": destination}
    problem(client.get("/api/memory", params={"model": "7B"}, headers=headers), 403)


def test_a_link_on_another_site_can_be_followed(client):
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-dest": "document", "sec-fetch-mode": "navigate"}
    assert client.get("/api/memory", params={"model": "7B"}, headers=headers).status_code == 200


# The token


def test_without_the_token_there_is_nothing_but_health(shared):
    for path, headers in (
        ("/api/memory?model=7B", {}),
        ("/api/jobs", {"authorization": "Bearer a-token-of-the-class-2027"}),
        ("/api/jobs", {"authorization": f"Basic {TOKEN}"}),
        ("/api/jobs", {"cookie": "loralens.token=x"}),
        ("/api/jobs", {"cookie": "loralens.token=\u00e9".encode("latin-1").decode("latin-1")}),
        (f"/api/jobs?token={TOKEN}", {}),
    ):
        asked = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
        answer = patiently(lambda path=path, asked=asked: httpx.get(shared.address + path, headers=asked, timeout=60))
        assert problem(answer, 401)["code"] == "unauthorized" and answer.headers["www-authenticate"] == "Bearer"
    assert httpx.get(f"{shared.address}/api/health", timeout=60).status_code == 200


def test_a_link_with_the_token_opens_the_page_and_the_token_leaves_the_address(shared):
    with httpx.Client(base_url=shared.address, timeout=60) as browser:
        form = browser.get("/part2")
        assert form.status_code == 401 and "<form" in form.text and "令牌" in form.text
        assert browser.get("/part2", params={"token": "wrong-wrong-wrong"}).status_code == 401
        answer = browser.get("/part2", params={"rank": "8", "token": TOKEN, "lang": "en"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/part2?rank=8&lang=en")
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=lax" in cookie
        assert browser.get("/part2").status_code == 200
        assert patiently(lambda: browser.get("/api/gpus")).status_code == 200


@pytest.mark.parametrize("path", ["//evil.example/x", "/\\evil.example/x", "///evil.example/x"])
def test_the_link_leads_nowhere_else(shared, path):
    connection = http.client.HTTPConnection("127.0.0.1", shared.port, timeout=60)
    connection.request("GET", f"{path}?token={TOKEN}")
    answer = connection.getresponse()
    answer.read()
    connection.close()
    target = answer.headers["location"]
    assert answer.status == 303 and target.startswith("/") and target[1] not in "/\\"


@pytest.mark.parametrize("token", ["short", "has spaces in it, many", "новый-токен-класса-2026"])
def test_a_token_that_could_be_guessed_or_not_be_sent_is_refused(token):
    with pytest.raises(ValueError, match="16"):
        Settings(token=token)


def test_who_is_expected_to_share():
    assert not Settings().is_shared() and not Settings(host="::1").is_shared()
    assert Settings(host="0.0.0.0").is_shared() and Settings(token=TOKEN).is_shared()
    assert not Settings(host="0.0.0.0", shared="off").is_shared() and Settings(shared="on").is_shared()


# Jobs


def test_no_list_holds_the_job_of_another_and_the_id_alone_opens_it(shared, visitor):
    started = patiently(lambda: visitor.post("/api/benchmarks", json=SMALL))
    job = started.json()["id"]
    with httpx.Client(base_url=shared.address, headers=visitor.headers, timeout=60) as other:
        for path in ("/api/jobs", "/api/benchmarks"):
            rows = next(iter(patiently(lambda path=path: visitor.get(path)).json().values()))
            assert [row["id"] for row in rows] == [job]
            assert job not in patiently(lambda path=path: other.get(path)).text
        assert patiently(lambda: other.get(f"/api/jobs/{job}")).json()["id"] == job
    ended(visitor, job)


def test_one_address_has_so_many_jobs_and_no_more(visitor):
    jobs = [patiently(lambda: visitor.post("/api/benchmarks", json={**SMALL, "seconds": 600})) for _ in range(4)]
    assert [job.status_code for job in jobs] == [202, 202, 202, 409]
    assert "3 jobs of your address" in jobs[3].json()["detail"]
    for job in jobs[:3]:
        ended(visitor, job.json()["id"])


# Limits


def test_two_workers_count_together(shared):
    """Each connection is one worker's; the burst of 40 is that of both."""
    with httpx.Client(headers={"connection": "close"}, timeout=60) as alone:  # each on a connection of its own
        answers = (alone.get(f"{shared.address}/api/gpus") for _ in range(1000))
        answer = next(answer for answer in answers if answer.status_code == 429)
    assert problem(answer)["code"] == "too_many_requests"
    assert int(answer.headers["retry-after"]) >= 1
    assert httpx.get(f"{shared.address}/api/health", timeout=60).status_code == 200  # is never counted


def test_streams_are_counted_while_they_last(shared, visitor):
    job = patiently(lambda: visitor.post("/api/benchmarks", json={**SMALL, "seconds": 600})).json()
    head = f"GET {job['events']} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    streams = []
    pause = threading.Event()
    try:
        while len(streams) < 2:
            raw = socket.create_connection(("127.0.0.1", shared.port), timeout=60)
            raw.sendall(head)
            if raw.recv(12) == b"HTTP/1.1 200":
                streams.append(raw)
            else:
                raw.close()
                pause.wait(0.5)
        refused = visitor.get(job["events"])
        assert refused.status_code == 429
    finally:
        for raw in streams:
            raw.close()
        patiently(lambda: visitor.delete(f"/api/jobs/{job['id']}"))


@pytest.fixture
def file():
    made = new_file(2)
    yield made
    made.unlink()


def admitted(limits, client="10.0.0.1", stream=False, times=50):
    found = 0
    while found < times and limits.admit(client, stream=stream) is None:
        found += 1
        limits.left(client, stream=stream)
    return found


def test_a_burst_is_admitted_and_then_the_rate(file):
    first, second = (Limits(BOUNDS, file, worker, 2) for worker in range(2))
    # While the loop runs a few more fall due: the bound is the burst and at most what the run's time earned.
    assert 5 <= admitted(first, times=5) + admitted(second, times=3) < 9
    refused = next(r for r in (first.admit("10.0.0.1", stream=False) for _ in range(20)) if r)
    assert refused.detail and 0 < refused.seconds <= 0.6
    assert second.admit("10.0.0.2", stream=False) is None  # another client is not concerned
    first.close()
    second.close()


def test_what_is_under_way_counts_over_both_workers_and_a_dead_worker_leaves_nothing(file):
    first, second = (Limits(BOUNDS, file, worker, 2) for worker in range(2))
    assert first.admit("a", stream=True) is None and second.admit("a", stream=True) is None
    assert "2 streams" in first.admit("a", stream=True).detail
    assert first.admit("a", stream=False) is None
    Limits(BOUNDS, file, 1, 2).close()  # the successor of the second
    assert first.admit("a", stream=True) is None
    first.close()
    second.close()


def test_nobody_chooses_whose_place_is_shared(file):
    keys = set()
    for _ in range(2):
        other = new_file(1)
        with other.open("r+b") as opened, mmap.mmap(opened.fileno(), 16) as start:
            keys.add(bytes(start[:16]))
        other.unlink()
    assert len(keys) == 2


def test_one_customer_of_ipv6_is_one_client():
    assert client_key("2001:db8::1") == client_key("2001:db8::ffff") != client_key("2001:db8:0:1::1")
    assert client_key("::ffff:10.0.0.7") == "10.0.0.7" and client_key("fe80::1%eth0") == client_key("fe80::2")
    assert client_key("") == ""
