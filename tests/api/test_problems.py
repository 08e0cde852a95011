"""Every way to fail answers one shape."""

from __future__ import annotations

import inspect

import pytest
from api.checks import problem
from fastapi import FastAPI
from starlette.testclient import TestClient

from loralens.api import problems
from loralens.core import errors
from loralens.endpoints.problem import from_error
from loralens.settings import Settings

ERRORS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.LoraLensError)]


def test_the_tree_is_not_empty():
    assert len(ERRORS) > 10


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_class_becomes_a_problem(kind):
    body = from_error(kind("what was given", field="model", hint="try this"))
    assert body["code"] == kind.code
    assert body["status"] == kind.status
    assert (body["detail"], body["field"], body["hint"]) == ("what was given", "model", "try this")


def test_codes_are_unique():
    codes = [kind.code for kind in ERRORS]
    assert len(codes) == len(set(codes))


@pytest.fixture
def faulty():
    app = FastAPI()
    app.state.settings = Settings()
    app.state.page = None
    problems.install(app)

    @app.get("/broken")
    def broken():
        raise RuntimeError("secret detail")

    @app.get("/number")
    def number(count: int):
        return count

    return TestClient(app, raise_server_exceptions=False)


def test_a_fault_of_the_server_says_nothing_about_its_inside(faulty, caplog):
    body = problem(faulty.get("/broken"), 500)
    assert body["code"] == "internal_error"
    assert "secret" not in str(body)
    assert "secret detail" in caplog.text  # the log has it


def test_a_validation_error_of_the_framework_names_its_field(faulty):
    body = problem(faulty.get("/number?count=many"), 422)
    assert body["field"] == "count"
    assert body["code"] == "invalid_input"


def test_a_missing_page_says_how_it_is_built(faulty):
    assert "start.sh" in problem(faulty.get("/part2"), 404)["hint"]
