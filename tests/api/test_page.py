"""Which document answers an address, in which language, and how its files are sent."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from api.checks import problem
from starlette.testclient import TestClient

from loralens.api.app import create_app
from loralens.api.page import document_name
from loralens.settings import Settings

BROWSER = {"accept": "text/html", "accept-encoding": "identity"}
NAMES = [f"pages/{page}.{lang}.html" for page in ("home", "part2", "asked") for lang in ("zh-CN", "en")]
SCRIPT = b"console.log('a script that was compressed while it was built')\n" * 40


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory):
    folder: Path = tmp_path_factory.mktemp("built")
    for name in ["index.html", *NAMES]:
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(name)
    (folder / "assets").mkdir()
    (folder / "assets" / "app-1.js").write_bytes(SCRIPT)
    (folder / "assets" / "app-1.js.gz").write_bytes(gzip.compress(SCRIPT))
    (folder / "assets" / "app-1.js.br").write_bytes(b"stands for a file in brotli")
    (folder / "assets" / "plain-1.js").write_bytes(b"1")
    settings = Settings(web_dir=folder, state_dir=tmp_path_factory.mktemp("state"))
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        yield client


@pytest.mark.parametrize(
    ("address", "cookie", "name"),
    [
        ("/", None, "pages/home.zh-CN.html"),
        ("/", "en", "pages/home.en.html"),
        ("/part2", None, "pages/part2.zh-CN.html"),
        ("/part2", "en", "pages/part2.en.html"),
        ("/part2?lang=en&theme=dark", None, "pages/part2.en.html"),
        ("/part2?lang=zh-CN", "en", "pages/part2.zh-CN.html"),
        ("/part2?lang=xx", "en", "pages/part2.en.html"),
        ("/part2", "../../secret", "pages/part2.zh-CN.html"),
        ("/part2?r=16", None, "pages/asked.zh-CN.html"),
        ("/part2?r=8&lang=en", None, "pages/asked.en.html"),
        ("/part2?embed=hub", "en", "index.html"),
        ("/part3", "en", "index.html"),
    ],
)
def test_the_document_of_an_address(built, address, cookie, name):
    headers = BROWSER if cookie is None else {**BROWSER, "cookie": f"loralens.lang={cookie}"}
    answer = built.get(address, headers=headers)
    assert (answer.status_code, answer.text) == (200, name)
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["cache-control"] == "no-cache"
    if address != "/part3":
        assert "cookie" in answer.headers["vary"].lower()
    head = built.head(address, headers=headers)
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("en-US,en;q=0.9", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh-CN"),
        ("zh-TW", "zh-CN"),
        ("de-DE,de;q=0.9,en-US;q=0.8,zh;q=0.7", "en"),
        ("en;q=0.2, zh;q=0.9", "zh-CN"),
        ("en;q=0, zh;q=0.1", "zh-CN"),
        ("fr", "en"),
        ("*", "zh-CN"),
        ("", "zh-CN"),
        ("en;q=nonsense, zh", "zh-CN"),
        ("x" * 5000, "en"),
    ],
)
def test_the_first_visit_speaks_the_browsers_language(built, accepted, language):
    headers = {**BROWSER, "accept-language": accepted}
    answer = built.get("/part2", headers=headers)
    assert answer.text == f"pages/part2.{language}.html"
    assert {"cookie", "accept-language"} <= {word.strip() for word in answer.headers["vary"].lower().split(",")}
    assert built.get("/part2?lang=en", headers=headers).text == "pages/part2.en.html"
    for remembered in ("en", "zh-CN"):
        cookie = {**headers, "cookie": f"loralens.lang={remembered}"}
        assert built.get("/part2", headers=cookie).text == f"pages/part2.{remembered}.html"


def test_numbers_of_the_defaults_are_sent_for_no_other_setting():
    from loralens.api.page import _FOREIGN

    for word in ("m", "g", "k", "r", "a", "t", "b", "s", "p", "o", "gc", "l", "n", "x", "c", "z", "run", "exp", "new"):
        assert word not in _FOREIGN
        assert document_name("/part2", [(word, "1")], None) == "pages/asked.zh-CN.html"


def test_a_document_is_asked_for_again_and_changes_with_the_language(built):
    first = built.get("/part2", headers=BROWSER)
    again = {**BROWSER, "if-none-match": first.headers["etag"]}
    assert built.get("/part2", headers=again).status_code == 304
    assert built.get("/part2?lang=en", headers=again).status_code == 200


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip, deflate, br, zstd", "br"),
        ("gzip", "gzip"),
        ("br;q=0, gzip;q=0.5", "gzip"),
        ("BR", "br"),
        ("identity", None),
        ("", None),
    ],
)
def test_the_smallest_copy_that_the_browser_takes(built, accepted, encoding):
    with built.stream("GET", "/assets/app-1.js", headers={"accept-encoding": accepted}) as answer:
        raw = b"".join(answer.iter_raw())
    assert answer.headers.get("content-encoding") == encoding
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert "accept-encoding" in answer.headers["vary"].lower()
    assert int(answer.headers["content-length"]) == len(raw)
    expected = {"br": b"stands for a file in brotli", "gzip": gzip.compress(SCRIPT), None: SCRIPT}[encoding]
    assert len(raw) == len(expected)


def test_a_file_without_copies_is_sent_as_it_is(built):
    answer = built.get("/assets/plain-1.js", headers={"accept-encoding": "br"})
    assert answer.content == b"1"
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize("path", ["/assets/none.js", "/assets/../index.html.none", "/assets/%00", "/assets/"])
def test_what_is_not_there_is_a_problem(built, path):
    problem(built.get(path, headers={"accept": "*/*"}), 404)


def test_a_page_cannot_be_written(built):
    problem(built.post("/assets/app-1.js"), 405)
    problem(built.post("/part2"), 405)
