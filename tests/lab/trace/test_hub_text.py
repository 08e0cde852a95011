"""Models whose code lies beside their weights: counted and traced as the retelling of that code is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

from loralens.core.answer.answers import memory_answer, parameters_answer
from loralens.core.architecture.registry import Count, count_parameters
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.question.recipe import Recipe
from loralens.lab.trace import grid, grid_hub
from loralens.lab.trace.build import build_on_meta, read_config
from loralens.lab.trace.step import count

FILE = Path(__file__).parents[2] / "oracles" / "traced-remote.jsonl"
LINES: dict[str, dict[str, Any]] = {
    line["name"]: line for line in map(json.loads, FILE.read_text("utf-8").splitlines())
}
GLM = {
    "hidden_size": 96, "ffn_hidden_size": 160, "num_layers": 3, "num_attention_heads": 6, "kv_channels": 16,
    "padded_vocab_size": 200, "seq_length": 64, "layernorm_epsilon": 1e-5,
}  # fmt: skip
S = {"hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 6, "vocab_size": 200}
E4 = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
SHAPES: dict[str, list[dict[str, Any]]] = {
    "chatglm": [
        {**GLM, "multi_query_attention": True, "multi_query_group_num": 2, "add_qkv_bias": True},
        {**GLM, "multi_query_attention": False, "add_bias_linear": True, "padded_vocab_size": 120_000},
        {**GLM, "multi_query_attention": True, "multi_query_group_num": 3, "add_qkv_bias": False},
    ],
    "minicpm": [S, {**S, "num_key_value_heads": 2, "tie_word_embeddings": False, "attention_bias": True}],
    "bailing_moe": [
        {**S, **E4, "num_key_value_heads": 2, "num_shared_experts": 2, "first_k_dense_replace": 1, "use_qkv_bias": True},
        {**S, **E4, "score_function": "sigmoid", "n_group": 2, "topk_group": 1, "head_dim": 24, "use_bias": True,
         "partial_rotary_factor": 0.5, "num_shared_experts": 1},
    ],
    "deepseek": [
        {**S, **E4, "n_routed_experts": 4, "n_shared_experts": 2, "first_k_dense_replace": 1},
        {**S, **E4, "n_routed_experts": 4, "num_key_value_heads": 3, "attention_bias": True, "moe_layer_freq": 2},
    ],
    "internlm2": [S, {**S, "num_key_value_heads": 2, "bias": False}],
}  # fmt: skip


@pytest.mark.parametrize(("family", "index"), [(name, n) for name, found in SHAPES.items() for n in range(len(found))])
def test_a_family_has_the_parameters_of_its_code(family: str, index: int) -> None:
    config = {"model_type": family, **SHAPES[family][index]}
    model = build_on_meta(read_config(config), Recipe.from_mapping({}))
    assert count_parameters(config) == Count(count(model)["total"], True, "")


def test_every_case_is_recorded_with_its_request() -> None:
    assert {name: line["request"] for name, line in LINES.items()} == dict(grid_hub.cases())
    assert all("expected" in line for line in LINES.values())


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "minicpm", **S, "sparse_config": {"topk": 64}}, "sparse_config"),
        ({"model_type": "bailing_moe", **S, **E4, "num_nextn_predict_layers": 1}, "further tokens"),
        ({"model_type": "chatglm", **GLM, "fp32_residual_connection": True}, "fp32_residual_connection"),
    ],
)
def test_what_their_code_does_and_the_walk_does_not_is_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(UnsupportedArchitecture, match=said):
        memory_answer({"config": config, "method": "lora"})


@pytest.mark.parametrize(
    "name",
    ["chatglm3-6b/lora-many", "minicpm-2b/full-checkpointing", "glm-4-9b-chat/lora-padded", "internlm2-7b/qlora"],
)
def test_records_are_not_stale(name: str) -> None:
    assert grid.trace_one(name, LINES[name]["request"])["expected"] == LINES[name]["expected"]


def test_the_head_of_chatglm_is_adapted_by_peft_and_by_no_trainer() -> None:
    config = {"model_type": "chatglm", "architectures": ["ChatGLMModel"], **SHAPES["chatglm"][0]}
    lora = {"rank": 4, "target_modules": "all-linear"}
    found = {}
    for trainer in ("none", "llama-factory"):
        asked = {"config": config, "method": "lora", "recipe": {"trainer": trainer, "lora": lora}}
        found[trainer] = parameters_answer(asked)["parameters"]["trainable"]
    assert found["none"] - found["llama-factory"] == 4 * (96 + 200)


@pytest.mark.parametrize("family", ["bailing_moe", "deepseek"])
def test_a_pipelines_later_stage_has_no_embedding_to_ask(family: str) -> None:
    recipe = {"sequence_length": 64, "parallelism": {"gpus": 2, "pp": 2}}
    asked = {"config": {"model_type": family, **SHAPES[family][0]}, "method": "qlora", "recipe": recipe}
    assert memory_answer(asked)["estimates"]


def test_an_answer_says_whose_code_runs_and_what_is_not_known_is_refused() -> None:
    question = {"config": {"model_type": "internlm2", **S}, "method": "lora"}
    assumptions = memory_answer(question)["estimates"][0]["assumptions"]
    assert any("lies beside its weights" in said for said in assumptions)
    with pytest.raises(UnsupportedArchitecture, match="not modelled"):
        memory_answer({**question, "recipe": {"head": "sequence_classification"}})
    with pytest.raises(UnsupportedArchitecture):
        memory_answer({**question, "recipe": {"parallelism": {"gpus": 2, "tp": 2}}})
