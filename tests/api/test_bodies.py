"""Bodies and query strings, well-formed and hostile. Nothing that a client sends is ever a 500."""

from __future__ import annotations

import json

import pytest
from api.checks import problem
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loralens.core import catalogue
from loralens.core.question.recipe import WORD, WORDS

JSON_TYPE = {"content-type": "application/json"}
LLAMA = catalogue.model("7B").config
CONFIGS = {entry.family: entry.config for entry in catalogue.models()}  # one of each family

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=6,
)
NUMBERS = [0, -1, 1, 10**9, 2**31, 2**63, 10**30, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), -float("inf")]
hostile_number = st.sampled_from([*NUMBERS, True, "8", "", None, [], {}])
SIZES = [
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "vocab_size",
]


def post(client, body, path="/api/memory"):
    return client.post(path, content=json.dumps(body), headers=JSON_TYPE)


def answered(response):
    """200 with finite JSON, or a problem that is the client's doing."""
    if response.status_code == 200:
        json.loads(response.text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    else:
        body = problem(response)
        assert 400 <= response.status_code < 500, body


@pytest.mark.parametrize(
    "text",
    ["", "{", "nonsense", '{"model": 7B}', "\xff", "[" * 100_000, '{"a":' * 5_000, "9" * 5_000],
    ids=lambda text: text[:8] or "empty",
)
def test_undecodable_json_is_400_or_422(client, text):
    answer = client.post("/api/memory", content=text.encode("latin-1"), headers=JSON_TYPE)
    assert answer.status_code in (400, 422)
    assert problem(answer)["hint"]


@pytest.mark.parametrize("value", [[], "7B", 7, None, True])
def test_a_body_that_is_no_object_is_422(client, value):
    problem(post(client, value), 422)


def test_deep_nesting_is_refused(client):
    value = {}
    for _ in range(40):
        value = {"config": value}
    assert "32 levels" in problem(post(client, value), 422)["detail"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
def test_another_content_type_is_415(client, kind):
    answer = client.post("/api/memory", content='{"model": "7B"}', headers={"content-type": kind} if kind else {})
    assert "content-type" in problem(answer, 415)["hint"]


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ("", 422, "model"),
        ("model=8X", 404, "model"),
        ("model=", 422, "model"),
        ("model=7B&rank=0", 422, "lora.rank"),
        ("model=7B&rank=1000000000", 422, "lora.rank"),
        ("model=7B&rank=-8", 422, "lora.rank"),
        ("model=7B&rank=eight", 422, "lora.rank"),
        ("model=7B&rank=nan", 422, "lora.rank"),
        ("model=7B&rank=8&rank=16", 422, "rank"),
        ("model=7B&ranks=8", 422, "ranks"),
        ("model=7B&method=magic", 422, "method"),
        ("model=7B&optimizer=adam", 422, "optimizer"),
        ("model=7B&gpu=abacus", 404, "gpu"),
        ("model=7B&sequence_length=" + "9" * 5000, 422, "sequence_length"),
    ],
)
def test_what_is_wrong_with_a_query_is_named(client, query, status, field):
    for path in ("/api/memory", "/api/parameters", "/api/plan"):
        body = problem(client.get(f"{path}?{query}"), status)
        assert body["field"] == field
        assert body["hint"]


def test_too_many_parameters_are_refused(client):
    problem(client.get("/api/memory?" + "&".join(f"a{n}=1" for n in range(200))), 422)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize(
    "value", [0, -1, 10**30, "4096", None, float("nan"), float("inf"), [4096], 0.5, "missing"], ids=str
)
def test_a_broken_config_is_a_named_problem(client, name, value):
    config = {**LLAMA, name: value}
    if value == "missing":
        del config[name]
    answer = post(client, {"config": config})
    if value in (None, "missing") and name == "num_key_value_heads":
        assert answer.status_code == 200  # transformers falls back to num_attention_heads
        return
    body = problem(answer, 422)
    assert name in f"{body['field']} {body['detail']}"
    assert body["hint"]


@settings(max_examples=50)
@given(
    st.sampled_from([*LLAMA, "rope_scaling", "sliding_window", "head_dim", "quantization_config"]),
    hostile_number | anything,
)
@example("model_type", {})
@example("architectures", [None])
@example("num_hidden_layers", 10**9)
def test_a_config_with_one_hostile_field_is_never_a_500(client, name, value):
    answered(post(client, {"config": {**LLAMA, name: value}, "method": "qlora"}))


@settings(max_examples=50)
@given(st.data(), st.sampled_from(sorted(CONFIGS)), hostile_number)
def test_no_family_is_ever_a_500(client, data, family, value):
    name = data.draw(st.sampled_from(sorted(CONFIGS[family])))
    answered(post(client, {"config": {**CONFIGS[family], name: value}, "method": "lora"}))


@settings(max_examples=60)
@given(st.sampled_from([word.name for word in WORDS]), st.text(max_size=12) | hostile_number.map(str))
def test_no_query_value_is_ever_a_500(client, name, value):
    assert name in WORD
    answered(client.get("/api/memory", params={"model": "7B", name: value}))


@settings(max_examples=50)
@given(
    st.dictionaries(
        st.sampled_from(["model", "config", "method", "methods", "recipe", "gpu"]), anything | st.just("7B"), max_size=4
    )
)
def test_no_body_is_ever_a_500(client, body):
    answered(post(client, body))


@settings(max_examples=60)
@given(
    st.sampled_from(["lora", "quantization", "parallelism", "stack", *(w.name for w in WORDS)]),
    anything | hostile_number,
)
def test_no_recipe_is_ever_a_500(client, name, value):
    answered(post(client, {"model": "qwen2.5-0.5b", "recipe": {name: value}}))


@settings(max_examples=40)
@given(st.text(max_size=60), st.sampled_from(["models", "gpus"]))
def test_no_name_is_ever_a_500(client, name, kind):
    from urllib.parse import quote

    answered(client.get(f"/api/{kind}/{quote(name, safe='')}"))
