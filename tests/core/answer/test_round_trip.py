"""An answer's recipe is the recipe that was used: posting it back gives the same answer."""

import json

import pytest
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as PEFT_TARGETS

from loralens.core import catalogue, methods
from loralens.core.answer.answers import memory_answer, plan_answer
from loralens.core.architecture.registry import FAMILIES, build
from loralens.core.methods.adapters import PEFT_DEFAULTS
from loralens.core.question.recipe import Recipe
from loralens.core.step.counts import Counts, held_parameters
from loralens.planner.fit import fit_answer
from loralens.planner.sweep import sweep_answer

MODELS = [entry for entry in catalogue.models() if not build(entry.config).no_adapters]
ONE_OF_EACH = list(
    {entry.config["model_type"]: entry for entry in reversed(MODELS) if not build(entry.config).counted}.values()
)


def back(recipe):
    """A recipe as a client would send it back."""
    return json.loads(json.dumps(recipe))


@pytest.mark.parametrize("method", methods.METHODS)
def test_the_recipe_of_every_model_prepares_the_same_model(method):
    for entry in MODELS:
        prepared, again = build(entry.config), build(entry.config)
        first = methods.prepare(method, prepared, Recipe())
        used = Recipe.from_mapping(back(first.recipe.to_dict()))
        assert used == first.recipe
        assert (used.lora.target_modules is None) is (method == "full")
        assert methods.prepare(method, again, used) == first, entry.id
        one, two = (Counts.of(held_parameters(root), "bfloat16") for root in (prepared, again))
        assert (one.total, one.trainable, one.adapter_bytes) == (two.total, two.trainable, two.adapter_bytes), entry.id


@pytest.mark.parametrize("entry", ONE_OF_EACH, ids=lambda entry: entry.config["model_type"])
def test_posting_an_answers_recipe_back_gives_the_same_answer(entry):
    for method in ("qlora",) if "q_proj" in str(build(entry.config).default_targets) else methods.METHODS:
        body = {"model": entry.id, "method": method}
        first = memory_answer(body, verdicts=False)
        assert memory_answer({**body, "recipe": back(first["estimates"][0]["recipe"])}, verdicts=False) == first


@pytest.mark.parametrize("model", ["gpt2", "phi-2"])
def test_plans_verdicts_and_sweeps_can_be_posted_back(model):
    body = {"model": model, "method": "lora"}
    first = plan_answer(body)
    assert plan_answer({**body, "recipe": back(first["plans"][0]["recipe"])}) == first
    small = {**body, "gpu": "custom:6GiB"}
    verdict = fit_answer(small)
    assert fit_answer({**small, "recipe": back(verdict["recipe"])}) == verdict
    swept = {"model": model, "sweep": {"rank": [4, 8]}, "methods": ["full", "qlora", "lora"]}
    sweep = sweep_answer(swept)
    assert sweep["recipe"]["lora"]["target_modules"] is not None
    assert sweep_answer({**swept, "recipe": back(sweep["recipe"])}) == sweep


def test_what_is_called_pefts_default_is_the_one_of_the_installed_peft():
    ours = {entry.config["model_type"]: build(entry.config).default_targets for entry in MODELS}
    for model_type in FAMILIES:
        assert (model_type in PEFT_DEFAULTS) is (model_type in PEFT_TARGETS), model_type
        if model_type in PEFT_DEFAULTS and model_type in ours:
            assert list(ours[model_type]) == PEFT_TARGETS[model_type], model_type


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("gpt2", "target modules c_attn: PEFT's default for gpt2"),
        ("phi-3-mini", "target modules qkv_proj: usual; PEFT has no default for phi3"),
    ],
)
def test_the_answer_says_which_targets_it_chose_and_whose_choice_they_are(model, said):
    estimate = memory_answer({"model": model, "method": "lora"})["estimates"][0]
    assert said in estimate["assumptions"]
    asked = {"model": model, "method": "lora", "recipe": {"lora": {"target_modules": None}}}
    assert memory_answer(asked)["estimates"][0] == estimate
