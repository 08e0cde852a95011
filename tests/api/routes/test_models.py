from __future__ import annotations

import pytest
from api.checks import problem

from loralens.api.shape import shape
from loralens.core.answer.listing_shapes import ModelsAnswer
from loralens.core.catalogue.shapes import ModelDetail


def test_all_models_have_the_documented_shape(client):
    answer = shape(ModelsAnswer).model_validate(client.get("/api/models").json())
    ids = [model.id for model in answer.models]
    assert len(ids) == len(set(ids))
    assert {"llama-2-7b", "llama-2-13b", "llama-30b", "llama-2-70b"} <= set(ids)
    assert all(model.source for model in answer.models)


def test_a_family(client):
    models = client.get("/api/models?family=llama").json()["models"]
    assert models
    assert {model["family"] for model in models} == {"llama"}
    assert client.get("/api/models?family=none").json() == {"models": []}


@pytest.mark.parametrize("name", ["llama-2-7b", "7B", "meta-llama/Llama-2-7b-hf"])
def test_one_model_by_any_of_its_names(client, name):
    model = shape(ModelDetail).model_validate(client.get(f"/api/models/{name}").json())
    assert model.id == "llama-2-7b"
    assert model.config["hidden_size"] == 4096


@pytest.mark.parametrize("name", ["nothing", "%2e%2e/gpus", "meta-llama/none", "a" * 5000])
def test_an_unknown_model_is_404(client, name):
    assert problem(client.get(f"/api/models/{name}"), 404)["hint"]
