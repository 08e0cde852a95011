"""Optimizer state as each library's source keeps it, and steps that happen elsewhere."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("bitsandbytes")

from loralens.core.answer.estimate import estimate_model
from loralens.core.errors import InvalidInput
from loralens.core.question.model import resolve
from loralens.core.question.recipe import OPTIMIZERS, Recipe
from loralens.lab.trace.case import TraceResult, trace

CONFIG = {
    "model_type": "llama",
    "vocab_size": 1024,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
MATRICES = {"embeddings": 2 * 1024 * 256, "attention": 2 * (2 * 256 * 256 + 2 * 256 * 128), "mlp": 2 * 3 * 256 * 768}
ELEMENTS = sum(MATRICES.values())
VECTORS = 5  # norms, of 256 elements each
TENSORS = 2 + 2 * 7 + VECTORS
ALL = ELEMENTS + VECTORS * 256
TABLES = 2 * 256 * 4  # bitsandbytes' two maps of 256 values
ONLY_COMPUTED = ("adamw_4bit", "adamw_anyprecision")  # of packages that this project does not install


def stepped(**recipe: object) -> TraceResult:
    return trace(CONFIG, "full", {"sequence_length": 32, "autocast": None, **recipe})


@pytest.mark.parametrize(
    ("optimizer", "state_bytes"),
    [
        ("adamw_fused", 2 * 2 * ALL + 4 * TENSORS),  # two moments in bfloat16 and a counter on the device
        ("adamw_foreach", 2 * 2 * ALL),
        ("adamw_loop", 2 * 2 * ALL),
        ("sgd", 0),
        ("sgd_momentum", 2 * ALL),
        ("lion", 4 * ALL),
        ("adamw_8bit", 2 * (ELEMENTS + ELEMENTS // 256 * 4 + 4 * VECTORS * 256) + TABLES),
        ("lion_8bit", ELEMENTS + ELEMENTS // 256 * 4 + 4 * VECTORS * 256 + TABLES // 2),
        # the host keeps what has 100,000 elements or more: embeddings and the MLP
        ("paged_adamw_32bit", 2 * 4 * (MATRICES["attention"] + VECTORS * 256)),
        ("muon", 2 * ELEMENTS + VECTORS * (2 * 2 * 256 + 4)),  # vectors by fused AdamW
    ],
)
def test_state_bytes(optimizer, state_bytes):
    result = stepped(optimizer=optimizer)
    assert sum(s.size_bytes for s in result.living("forward") if s.kind == "optimizer_state") == state_bytes
    assert (result.trainable, result.total) == (ALL, ALL)


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name not in ONLY_COMPUTED])
def test_the_computed_step_is_the_traced_one(optimizer):
    recipe = {"sequence_length": 32, "autocast": None, "gradient_checkpointing": False, "optimizer": optimizer}
    computed = estimate_model(resolve(None, CONFIG), "full", Recipe.from_mapping(recipe)).to_dict((), "rule")
    assert {row["phase"]: row["peak_bytes"] for row in computed["phases"]} == trace(CONFIG, "full", recipe).phase_peaks


@pytest.mark.parametrize("optimizer", ONLY_COMPUTED)
def test_an_optimizer_without_a_package_to_trace_is_refused(optimizer):
    with pytest.raises(InvalidInput, match="cannot be traced"):
        stepped(optimizer=optimizer)


def test_foreach_needs_a_temporary_as_large_as_all_parameters():
    extra = stepped(optimizer="adamw_foreach").phase_peaks["optimizer"]
    fused = stepped(optimizer="adamw_fused").phase_peaks["optimizer"] - 4 * TENSORS
    assert extra - fused == 2 * ALL


def test_a_step_inside_backward_leaves_no_gradient():
    result = stepped(optimizer_in_backward=True)
    assert result.phase_categories["optimizer"]["gradients"] == 0
    assert stepped().phase_categories["optimizer"]["gradients"] == 2 * ALL


def test_accumulation_keeps_gradients_through_the_next_forward():
    plain, twice = stepped(), stepped(gradient_accumulation_steps=2)
    assert twice.phase_peaks["forward"] - plain.phase_peaks["forward"] == 2 * ALL
    assert stepped(gradient_accumulation_steps=8).to_dict() == twice.to_dict()


def test_clipping_holds_one_norm_per_tensor_and_a_scaler_is_used_with_float16():
    clipped = stepped(max_grad_norm=1.0)
    assert clipped.phase_peaks["optimizer"] > stepped().phase_peaks["optimizer"]
    scaled = stepped(weights_dtype="float32", autocast="float16")
    assert any(s.owner == "scaler" for s in scaled.living("forward"))


@pytest.mark.parametrize(
    ("recipe", "field"),
    [
        ({"loss": "fused"}, "recipe.loss"),
        ({"compile": True}, "recipe.compile"),
        ({"parallelism": {"gpus": 2, "strategy": "ddp"}}, "recipe.parallelism.strategy"),
        ({"stack": {"litgpt": "0.5"}}, "recipe.stack"),
    ],
)
def test_what_only_the_computed_answer_knows_is_refused(recipe, field):
    with pytest.raises(InvalidInput) as caught:
        stepped(**recipe)
    assert caught.value.field == field
