"""The page, caches, compression, unknown paths, OpenAPI."""

from __future__ import annotations

from pathlib import Path

import pytest
from api.checks import problem
from starlette.testclient import TestClient

from loralens.api import routes
from loralens.api.app import create_app
from loralens.settings import Settings

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.mark.parametrize("path", ["/", "/part2", "/part2?m=llama-2-7b", "/anything/below"])
def test_a_browser_gets_the_page(client, path):
    answer = client.get(path, headers=BROWSER)
    assert answer.status_code == 200
    assert "LoRA Lens" in answer.text
    assert answer.headers["cache-control"] == "no-cache"


def test_hashed_files_are_kept_for_ever_and_compressed(client):
    answer = client.get("/assets/app-1a2b3c.js", headers={"accept-encoding": "gzip"})
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["content-encoding"] == "gzip"


def test_a_file_that_changed_is_asked_for_again(client):
    first = client.get("/", headers=BROWSER)
    again = client.get("/", headers={**BROWSER, "if-none-match": first.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize(
    "path", ["/../pyproject.toml", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc/passwd", "/assets/%00"]
)
def test_nothing_outside_the_page_is_served(client, path):
    problem(client.get(path), 404)


@pytest.mark.parametrize("accept", [BROWSER["accept"], "application/json", "*/*"])
@pytest.mark.parametrize("path", ["/api", "/api/", "/api/typo", "/api/memory/", "/api/v1/memory"])
def test_an_unknown_api_path_is_a_problem_for_browsers_too(client, path, accept):
    assert problem(client.get(path, headers={"accept": accept}), 404)["code"] == "not_found"


def test_a_wrong_method_is_a_problem(client):
    answer = client.put("/api/memory", json={})
    assert problem(answer, 405)["code"] == "method_not_allowed"
    assert answer.headers["allow"]


def test_json_is_compressed_and_asked_again_by_its_tag(client):
    answer = client.get("/api/gpus", headers={"accept-encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["cache-control"] == "no-cache"


def test_without_a_built_page_the_api_runs(tmp_path):
    from starlette.testclient import TestClient

    settings = Settings(web_dir=tmp_path, state_dir=tmp_path)
    with TestClient(create_app(settings), base_url="http://localhost") as bare:
        assert bare.get("/api/health").json()["status"] == "ok"
        assert "start.sh" in problem(bare.get("/part2", headers=BROWSER), 404)["hint"]


def test_every_route_module_is_included():
    files = {file.stem for file in Path(routes.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == set(routes.ROUTERS)


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/api/memory", ["GET", "POST"]),
        ("/api/models/resolve", ["POST"]),  # though a model of that name could be asked for
        ("/api/gpus/t4", ["GET"]),
        ("/api/adapters/kept/x", ["GET", "DELETE"]),
    ],
)
def test_a_wrong_method_is_told_the_right_ones_without_making_the_schema(path, methods):
    app = create_app()
    answer = TestClient(app, base_url="http://127.0.0.1:5173").put(path)
    assert problem(answer, 405)
    assert answer.headers["allow"].split(", ") == methods
    assert app.openapi_schema is None  # half a second of the event loop


def test_the_schema_is_kept_as_bytes(client):
    first = client.get("/api/openapi.json")
    again = client.get("/api/openapi.json", headers={"if-none-match": first.headers["etag"]})
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
