"""A trace over HTTP, on a real server."""

from __future__ import annotations

import json

import httpx
import pytest

pytest.importorskip("peft")

BODY = {
    "config": {
        "model_type": "llama",
        "vocab_size": 512,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
    },
    "method": "full",
    "recipe": {"sequence_length": 32},
}


def test_a_trace_starts_streams_and_ends(client: httpx.Client) -> None:
    started = client.post("/api/traces", json=BODY)
    assert started.status_code == 202
    kinds = []
    with client.stream("GET", started.json()["events"], timeout=120) as stream:
        for line in stream.iter_lines():
            if line.startswith("event: "):
                kinds.append(line.removeprefix("event: "))
            if line.startswith("data: ") and kinds[-1] == "result":
                (traced,) = json.loads(line.removeprefix("data: "))["traces"]
    assert kinds[-1] == "done" and "progress" in kinds
    assert traced["basis"] == "traced"
    assert traced["computed"]["difference_bytes"] == 0


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({**BODY, "recipe": {"loss": "fused"}}, 422, "recipe.loss"),
        ({"model": "no-such-model"}, 404, "model"),
        ({}, 422, "model"),
    ],
)
def test_bad_requests_are_refused_at_once(
    client: httpx.Client, body: dict[str, object], status: int, field: str
) -> None:
    answer = client.post("/api/traces", json=body)
    assert (answer.status_code, answer.json()["field"]) == (status, field)
