"""The schema tells what the API does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loralens.core.errors import LoraLensError
from loralens.core.question.recipe import WORD
from loralens.endpoints.table import COMPUTED, compute


@pytest.fixture(scope="module")
def schema(client):
    return client.get("/api/openapi.json").json()


def test_every_operation_documents_itself(schema):
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert operation["operationId"], where
            success = next(code for code in operation["responses"] if code.startswith("2"))
            content = operation["responses"][success].get("content", {})
            for kind, described in content.items():  # files are bytes, an event stream describes its items
                assert kind != "application/json" or described["schema"], where
                assert kind != "text/event-stream" or described["itemSchema"], where


def test_operation_ids_are_unique(schema):
    ids = [operation["operationId"] for path in schema["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))


def test_errors_are_documented_as_problems(schema):
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            for code, response in operation["responses"].items():
                if code.startswith(("4", "5")):
                    schema_of = response["content"]["application/problem+json"]["schema"]
                    assert schema_of == {"$ref": "#/components/schemas/Problem"}, path
    assert "HTTPValidationError" not in schema["components"]["schemas"]


def test_all_references_lead_somewhere(schema):
    def references(value):
        if isinstance(value, dict):
            yield from ([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
            value = list(value.values())
        if isinstance(value, list):
            for item in value:
                yield from references(item)

    for reference in set(references(schema)):
        assert reference.startswith("#/components/schemas/"), reference
        assert reference.rsplit("/", 1)[-1] in schema["components"]["schemas"]


def test_every_recipe_word_is_a_query_parameter(schema):
    names = {parameter["name"] for parameter in schema["paths"]["/api/memory"]["get"]["parameters"]}
    assert names == {"model", "method", "gpu", "allocator", *WORD}


@pytest.mark.parametrize("path", ["/api/memory", "/api/parameters", "/api/plan"])
def test_the_example_body_works(client, schema, path):
    content = schema["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    assert client.post(path, json=content["example"]).status_code == 200


def _takes_null(described):
    inner = [described, *described.get("anyOf", [])]
    return any(one.get("type") == "null" or "null" in (one.get("type") or ()) for one in inner)


@pytest.mark.parametrize("name", COMPUTED)
def test_null_is_allowed_by_the_schema_where_it_is_answered(schema, name):
    """Where several methods would be answered, an endpoint that takes one alone refuses the question, not the null."""
    content = schema["paths"][f"/api/{name}"]["post"]["requestBody"]["content"]["application/json"]
    described, example = content["schema"], content["example"]
    for field in described["properties"].keys() - set(described.get("required", ())) - {"model"}:
        try:
            compute(name, {**example, field: None})
        except LoraLensError as error:
            assert not _takes_null(described["properties"][field]) or "method" in error.message, (field, error.message)
        else:
            assert _takes_null(described["properties"][field]), field


def test_every_promised_endpoint_is_there(schema):
    promised = {"memory", "parameters", "models", "models/{id}", "gpus", "plan", "system", "health"}
    assert {f"/api/{name}" for name in promised} <= set(schema["paths"])


def test_the_pages_copy_is_the_schema_of_today(schema):
    copy = Path(__file__).resolve().parents[2] / "frontend" / "openapi.json"
    assert json.loads(copy.read_text(encoding="utf-8")) == schema, "make api-types writes it anew"
