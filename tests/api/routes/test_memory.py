"""/api/memory says what the contract promises."""

from __future__ import annotations

import pytest

from loralens.api.shape import shape
from loralens.core.answer.shapes import MemoryAnswer

CASES = [
    {"model": "7B"},
    {"model": "qwen2.5-0.5b", "method": "lora"},
    {"model": "meta-llama/Llama-2-7b-hf", "methods": ["qlora", "full"]},
    {"model": "7B", "gpu": "rtx-4090", "recipe": {"gradient_checkpointing": True, "lora": {"rank": 64}}},
]


@pytest.mark.parametrize("body", CASES, ids=str)
def test_the_answer_has_the_documented_shape(client, body):
    shape(MemoryAnswer).model_validate(client.post("/api/memory", json=body).json(), strict=False)


def test_llama_2_7b_counts(client):
    answer = client.get("/api/memory?model=7B").json()
    assert answer["model"]["parameters"] == 6_738_415_616
    methods = {estimate["method"]: estimate for estimate in answer["estimates"]}
    assert list(methods) == ["full", "lora", "qlora"]
    assert methods["lora"]["parameters"]["total"] == 6_742_609_920
    assert methods["lora"]["parameters"]["trainable"] == 4_194_304
    assert methods["full"]["parameters"]["trainable"] == 6_738_415_616


@pytest.mark.parametrize("body", CASES, ids=str)
def test_every_byte_of_the_peak_is_explained(client, body):
    for estimate in client.post("/api/memory", json=body).json()["estimates"]:
        peak = estimate["peak"]["allocated_bytes"]
        assert sum(estimate["breakdown"].values()) == peak
        assert sum(term["bytes"] for term in estimate["terms"]) == peak
        assert max(phase["peak_bytes"] for phase in estimate["phases"]) == peak
        assert peak <= estimate["peak"]["reserved_bytes"] <= estimate["peak"]["device_bytes"]


def test_get_and_post_agree(client):
    flat = "model=7B&method=lora&rank=16&alpha=32&target_modules=q_proj,k_proj"
    flat += "&micro_batch_size=2&gradient_checkpointing=true"
    body = {
        "model": "7B",
        "methods": ["lora"],
        "recipe": {
            "micro_batch_size": 2,
            "gradient_checkpointing": True,
            "lora": {"rank": 16, "alpha": 32, "target_modules": ["q_proj", "k_proj"]},
        },
    }
    assert client.get(f"/api/memory?{flat}").text == client.post("/api/memory", json=body).text


def test_a_config_of_your_own_gives_the_numbers_of_the_catalogue(client):
    config = client.get("/api/models/llama-2-7b").json()["config"]
    own = client.post("/api/memory", json={"config": config}).json()
    known = client.post("/api/memory", json={"model": "llama-2-7b"}).json()
    assert own["estimates"] == known["estimates"]
    assert own["model"]["id"] == "custom"


def test_several_methods_in_one_query(client):
    answer = client.get("/api/memory?model=7B&method=qlora,lora").json()
    assert [estimate["method"] for estimate in answer["estimates"]] == ["qlora", "lora"]
    assert answer["comparison"] is None


def test_the_allocator_is_simulated_on_request(client):
    body = {"model": "gpt2", "method": "lora", "recipe": {"sequence_length": 512}}
    by_rule = client.post("/api/memory", json=body).json()["estimates"][0]
    simulated = client.post("/api/memory", json={**body, "allocator": "simulated"}).json()["estimates"][0]
    assert by_rule["peak"]["allocator"] == "rule"
    assert simulated["peak"]["allocator"] == "simulated"
    for name in ("phase", "allocated_bytes", "host_bytes"):
        assert simulated["peak"][name] == by_rule["peak"][name]
    low, high = simulated["peak"]["reserved_band_bytes"]
    assert low <= simulated["peak"]["reserved_bytes"] <= high
    assert any("simulated" in line for line in simulated["assumptions"])


@pytest.mark.parametrize("allocator", ["magic", None, 3, ["rule"], {}])
def test_an_unknown_allocator_is_refused(client, allocator):
    answer = client.post("/api/memory", json={"model": "gpt2", "allocator": allocator})
    assert answer.status_code == 422
    assert answer.json()["field"] == "allocator"


def test_other_answers_do_not_know_the_word(client):
    assert client.get("/api/plan?model=gpt2&allocator=simulated").status_code == 422
