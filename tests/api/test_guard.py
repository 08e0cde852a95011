"""Hosts, origins, sizes, headers."""

from __future__ import annotations

import base64
import hashlib
import os

import httpx
import pytest
from api.checks import problem

from loralens.api.hosts import host_allowed
from loralens.api.policy import ENGINE, ENGINE_POLICY, Policy, content_security_policy

HOSTS_ALLOWED = ["localhost", "localhost:5173", "127.0.0.1:5173", "[::1]:5173", "192.168.1.4:5173", "part2.localhost:1"]
HOSTS_REFUSED = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:5173", "", "x:y:z", "[::1].evil"]


@pytest.mark.parametrize("host", HOSTS_ALLOWED)
def test_local_names_and_addresses_pass(host):
    assert host_allowed(host, ())


@pytest.mark.parametrize("host", [*HOSTS_REFUSED, None])
def test_other_names_do_not(host):
    assert not host_allowed(host, ())


def test_a_configured_name_passes():
    assert host_allowed("Lens.Example:80", ("lens.example",))
    assert not host_allowed("a.lens.example", ("lens.example",))


def test_a_rebound_domain_is_refused(client):
    body = problem(client.get("/api/health", headers={"host": "evil.example"}), 403)
    assert body["field"] == "host"
    assert "LORALENS_ALLOWED_HOSTS" in body["hint"]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_of_another_site_cannot_write(client, site):
    problem(client.post("/api/memory", json={"model": "7B"}, headers={"sec-fetch-site": site}), 403)


def test_our_own_page_can(client):
    assert (
        client.post("/api/memory", json={"model": "7B"}, headers={"sec-fetch-site": "same-origin"}).status_code == 200
    )


def test_another_origin_is_not_invited(client):
    answer = client.get("/api/health", headers={"origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    preflight = client.options(
        "/api/memory", headers={"origin": "https://e.example", "access-control-request-method": "POST"}
    )
    assert not [name for name in preflight.headers if name.startswith("access-control")]


def test_50_megabytes_are_refused_unread(client):
    body = problem(
        client.post("/api/memory", content=b"0" * 50_000_000, headers={"content-type": "application/json"}), 413
    )
    assert body["code"] == "input_too_large"
    assert "1048576" in body["detail"]


def test_a_body_that_hides_its_size_is_counted(client):
    sent = 0

    def endless():
        nonlocal sent
        for _ in range(800):
            sent += 65_536
            yield b" " * 65_536

    try:
        answer = client.post("/api/memory", content=endless(), headers={"content-type": "application/json"})
    except httpx.WriteError:
        return  # refused while sending: the connection is closed
    problem(answer, 413)


@pytest.mark.parametrize("length", ["99999999999999999999999", "52428800"])
def test_a_length_alone_is_enough(server, length):
    import socket

    host, port = server.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(f"POST /api/memory HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode())
        first = raw.recv(64)
    assert first.startswith(
        (b"HTTP/1.1 413", b"HTTP/1.1 400")
    )  # 400: the parser itself refuses a length beyond 64 bits


@pytest.mark.parametrize("path", ["/api/health", "/api/nothing", "/part2", "/assets/app-1a2b3c.js"])
def test_every_answer_carries_the_security_headers(client, path):
    headers = client.get(path, headers={"accept": "text/html"}).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "frame-ancestors https://course.example" in headers["content-security-policy"]


def test_every_document_of_the_page_may_have_its_own_styles(tmp_path):
    (tmp_path / "pages").mkdir()
    (tmp_path / "index.html").write_text("<script>a()</script>")
    (tmp_path / "pages" / "part2.en.html").write_text('<script>a()</script><style data-sheets="/x.css">b{}</style>')
    policy = content_security_policy(tmp_path, ())
    digest = base64.b64encode(hashlib.sha256(b"b{}").digest()).decode()
    assert f"style-src 'self' 'sha256-{digest}';" in policy
    assert policy.count("sha256-") == 2  # the script that both share is named once


def test_a_page_that_was_built_anew_is_allowed_what_it_holds_now(tmp_path):
    index = tmp_path / "index.html"
    index.write_text("<script>a()</script>")
    policy = Policy(tmp_path, ())
    before = policy.current()
    index.unlink()
    assert policy.current() == before  # while the build runs
    index.write_text("<script>b()</script>")
    os.utime(index, ns=(1, 1))
    assert policy.current() == content_security_policy(tmp_path, ()) != before


def test_inline_scripts_of_the_page_are_allowed_by_hash_only(tmp_path):
    (tmp_path / "index.html").write_text(
        '<script>a()</script><script type=module src="/x.js"></script><style>b{}</style>'
    )
    policy = content_security_policy(tmp_path, ())
    digest = base64.b64encode(hashlib.sha256(b"a()").digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}';" in policy
    assert policy.count("sha256-") == 2
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-inline'" not in policy.replace("style-src-attr 'unsafe-inline'", "")


def test_only_the_worker_that_computes_may_compile_webassembly(client):
    policies = {path: client.get(path).headers["content-security-policy"] for path in ("/", "/part2", ENGINE + "x.js")}
    assert policies.pop(ENGINE + "x.js") == ENGINE_POLICY
    assert not any("wasm" in policy for policy in policies.values())
