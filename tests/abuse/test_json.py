"""JSON that is valid and that nobody should send: a named problem, never a 500 and never a cut connection."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from api.checks import problem

from loralens.core import catalogue
from loralens.core.errors import InvalidInput
from loralens.core.jsontext import MAX_DIGITS, from_json
from loralens.core.question.recipe import GROUPS, Recipe
from loralens.endpoints.table import compute

JSON_TYPE = {"content-type": "application/json"}
HALF = "\ud800"
HUGE = 10**400
LLAMA = catalogue.model("qwen2.5-0.5b").config
OPENAPI = json.loads((Path(__file__).parents[2] / "frontend" / "openapi.json").read_text(encoding="utf-8"))
WITH_BODY = [
    path
    for path, operations in OPENAPI["paths"].items()
    if "{" not in path and "application/json" in operations.get("post", {}).get("requestBody", {}).get("content", {})
]


def post(client, path, body):
    text = body if isinstance(body, str) else json.dumps(body)
    return client.post(path, content=text, headers=JSON_TYPE)


def answered_on_one_connection(client, response):
    """The problem; the connection must still carry the next request."""
    body = problem(response)
    assert 400 <= response.status_code < 500, body
    assert response.headers.get("connection") != "close"
    assert client.get("/api/health").status_code == 200
    return body


@pytest.mark.parametrize("path", WITH_BODY)
def test_half_a_surrogate_pair_is_refused_as_a_name(client, path):
    answered_on_one_connection(client, post(client, path, {HALF: 1}))


@pytest.mark.parametrize(
    "body",
    [
        {"config": {**LLAMA, "_name_or_path": HALF}},
        {"model": HALF},
        {"model": "7B", "method": HALF},
        {"model": "7B", "gpu": HALF},
        {"model": "7B", "recipe": {"stack": {"torch": HALF}}},
        {"model": "7B", "recipe": {"lora": {"modules_to_save": [HALF]}}},
        {"model": "7B", "recipe": {"lora": {"rank_pattern": {HALF: 8}}}},
    ],
    ids=lambda body: next(reversed(body)),
)
def test_half_a_surrogate_pair_is_refused_as_a_value(client, body):
    assert "\\ud800" in answered_on_one_connection(client, post(client, "/api/memory", body))["detail"]


def test_half_a_surrogate_pair_in_a_text_that_is_to_be_forgotten(client):
    text = "word " * 8_000
    body = {"old_text": text, "new_text": text[::-1], "old_name": HALF}
    answered_on_one_connection(client, post(client, "/api/forgetting", body))


def test_a_whole_pair_is_text(client):
    answer = post(client, "/api/memory", {"model": "7B", "method": "\ud83d\ude00"})
    assert "\N{GRINNING FACE}" in problem(answer, 422)["detail"]


@pytest.mark.parametrize("name", ["alpha", "dropout"])
@pytest.mark.parametrize("value", [HUGE, -HUGE, 10**120])
def test_an_integer_that_no_float_holds_in_lora(client, name, value):
    body = {"model": "7B", "method": "lora", "recipe": {"lora": {name: value}}}
    answered_on_one_connection(client, post(client, "/api/memory", body))


@pytest.mark.parametrize("path", ["/api/memory", "/api/plan", "/api/parameters", "/api/fit"])
@pytest.mark.parametrize(
    "body",
    [
        {"model": "7B", "recipe": {"max_grad_norm": HUGE}},
        {"config": {**LLAMA, "attention_dropout": HUGE}},
        {"config": {**LLAMA, "partial_rotary_factor": HUGE}},
        {"config": {**LLAMA, "rope_theta": HUGE, "x": [{"y": HUGE}]}},
    ],
    ids=["max_grad_norm", "attention_dropout", "partial_rotary_factor", "unknown"],
)
def test_an_integer_that_no_float_holds_anywhere(client, path, body):
    more = {"gpu": "a100", "method": "lora"} if path == "/api/fit" else {}
    assert "digits" in answered_on_one_connection(client, post(client, path, {**body, **more}))["detail"]


@pytest.mark.parametrize("name", ["alpha", "dropout", "max_grad_norm", "rank", "micro_batch_size"])
def test_an_integer_that_no_float_holds_in_a_query(client, name):
    answered_on_one_connection(client, client.get("/api/memory", params={"model": "7B", name: "9" * 400}))


@pytest.mark.parametrize("utilization", [5e-324, 1e-300, 1e-9, 0, HUGE, -1])
def test_a_utilization_of_next_to_nothing_gives_no_absurd_hours(client, utilization):
    body = {"model": "7B", "method": "lora", "gpu": "a100", "tokens": 10**12, "utilization": utilization}
    answered_on_one_connection(client, post(client, "/api/fit", body))


@pytest.mark.parametrize("text", ['{"model": "7B", "model": "13B"}', '{"model": "7B", "recipe": {"a": 1, "a": 1}}'])
def test_a_name_that_is_given_twice_is_refused(client, text):
    assert "twice" in answered_on_one_connection(client, post(client, "/api/memory", text))["detail"]


@pytest.mark.parametrize("recipe", [0, "", False, []])
def test_an_empty_value_is_no_recipe(client, recipe):
    body = answered_on_one_connection(client, post(client, "/api/memory", {"model": "7B", "recipe": recipe}))
    assert body["field"] == "recipe"


@pytest.mark.parametrize("body", [{"group_size": 0}, {"quantization": {"type": "gptq4", "group_size": 0}}], ids=str)
def test_groups_of_no_weights_are_refused(client, body):
    if "quantization" not in body:
        answer = client.get("/api/memory", params={"model": "7B", "method": "qlora", "quantization": "gptq4", **body})
    else:
        answer = post(client, "/api/memory", {"model": "7B", "method": "qlora", "recipe": body})
    assert answered_on_one_connection(client, answer)["field"] == "quantization.group_size"


@pytest.mark.parametrize("after", [2**53, 2**63, 10**400])
def test_an_event_number_that_the_store_cannot_hold(served, client, after):
    small = {"in_features": 256, "out_features": 256, "seconds": 0.5, "variants": ["addmm"], "cache": "hot"}
    job = served.post("/api/benchmarks", small)
    path = f"/api/jobs/{job['id']}/events"
    assert answered_on_one_connection(client, client.get(path, params={"after": after}))["field"] == "after"
    assert list(served.events(f"{path}?after={2**53 - 1}"))[-1]["event"] == "done"


@pytest.mark.parametrize("digits", [MAX_DIGITS, MAX_DIGITS + 1])
def test_the_reader_counts_digits(digits):
    text = b'{"a": -' + b"1" * digits + b"}"
    if digits <= MAX_DIGITS:
        assert from_json(text) == json.loads(text)
    else:
        with pytest.raises(InvalidInput, match="101 digits"):
            from_json(text)


@pytest.mark.parametrize(
    "text", [b'{"a": 0.' + b"1" * 300 + b"}", b'["\\ud83d\\ude00", "\\\\ud800"]', b"\xef\xbb\xbf[1]"]
)
def test_the_reader_leaves_honest_json_alone(text):
    assert from_json(text) == json.loads(text)


@pytest.mark.parametrize("raw", [b'"\xed\xa0\x80"', b"\xff\xfe\x00\xd8"])
def test_half_a_pair_that_is_not_even_escaped_is_no_json(raw):
    with pytest.raises(ValueError):
        from_json(raw)


FILES = {"train.yaml": "base_model: Qwen/Qwen2.5-7B\nadapter: qlora\nlora_r: 16\nmicro_batch_size: 2\n"}
OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 1.16 GiB"


@pytest.mark.parametrize(
    ("endpoint", "body", "field"),
    [
        ("memory", {"model": "gpt2", "trainers": 0}, "trainers"),
        ("check", {"files": FILES, "config": [None, None]}, "config"),
        ("check", {"files": FILES, "config": ""}, "config"),
        ("check", {"files": FILES, "model": 5}, "model"),
        ("explain", {"text": OUT_OF_MEMORY, "recipe": 5}, "recipe"),
        ("explain", {"text": OUT_OF_MEMORY, "model": "gpt2", "gpus": {"a": 1}}, "gpus"),
        ("explain", {"text": OUT_OF_MEMORY, "files": FILES, "method": "lora"}, "method"),
        ("fit", {"model": "gpt2", "gpu": "t4", "utilization": "much"}, "utilization"),
    ],
)
def test_what_no_schema_allows_is_refused_where_it_would_have_no_effect_too(endpoint, body, field):
    with pytest.raises(InvalidInput) as refused:
        compute(endpoint, body)
    assert refused.value.field == field
    assert refused.value.hint


def test_null_leaves_a_word_open_and_the_schema_says_so():
    for name in ("Recipe", *(group.capitalize() for group in GROUPS)):
        for word, schema in OPENAPI["components"]["schemas"][name]["properties"].items():
            kinds = [schema.get("type"), *(one.get("type") for one in schema.get("anyOf", ()))]
            assert "null" in kinds or any("null" in kind for kind in kinds if isinstance(kind, list)), (name, word)
            assert "enum" not in schema or None in schema["enum"], (name, word)
    assert Recipe.from_mapping({"evaluation": {"metrics": None}, "attention": None}) == Recipe()


def test_a_group_that_is_called_by_one_word_is_so_in_the_schema_too():
    said = {}
    for name in GROUPS:
        options = OPENAPI["components"]["schemas"]["Recipe"]["properties"][name]["anyOf"]
        said[name] = [one for one in options if one.get("type") == "string"]
        for choice in said[name][0].get("enum", ["7B"]) if said[name] else ():
            assert getattr(Recipe.from_mapping({name: choice}), name) is not None, (name, choice)
    assert [name for name, strings in said.items() if strings] == [
        "quantization",
        "objective",
        "teacher",
        "rollout",
        "value",
        "reward_model",
    ]
    for name in ("lora", "parallelism", "evaluation"):
        with pytest.raises(InvalidInput):
            Recipe.from_mapping({name: "AAA"})


VALUES = [5, 0, 1, -1, 1.5, True, False, "AAA", "", [], [1], {}, {"a": 1}, ["x"]]
KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


def kinds_of(schema):
    if "enum" in schema and "type" not in schema:
        return {KINDS[type(value)] for value in schema["enum"]}
    own = schema.get("type", [])
    return (
        {own} if isinstance(own, str) else {*own, *(kind for one in schema.get("anyOf", ()) for kind in kinds_of(one))}
    )


def test_no_word_takes_a_kind_of_value_that_its_schema_does_not_have():
    for group in (None, *GROUPS):
        for word, schema in OPENAPI["components"]["schemas"][(group or "recipe").capitalize()]["properties"].items():
            kinds = kinds_of(schema)
            for value in VALUES if word not in GROUPS or group else ():
                kind = KINDS[type(value)]
                if kind in kinds or (kind == "integer" and "number" in kinds):
                    continue
                with pytest.raises(InvalidInput):
                    Recipe.from_mapping({word: value} if group is None else {group: {word: value}})
