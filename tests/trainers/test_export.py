"""A recipe as a trainer's config reads back as the same recipe, and what the trainer cannot say is refused by name."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loralens.core.errors import InvalidInput
from loralens.core.question.recipe import WORD
from loralens.planner.question import read_question
from loralens.trainers.check import check_answer
from loralens.trainers.export import export_answer
from loralens.trainers.writing import WRITERS

OWN = {
    "micro_batch_size": [1, 2, 4], "sequence_length": [512, 1024, 4096], "gradient_accumulation_steps": [1, 4],
    "padded": [True, False], "weights_dtype": ["bfloat16", "float32", "float16"], "autocast": ["bfloat16", None],
    "optimizer": ["adamw_fused", "adamw_foreach", "adamw_8bit", "paged_adamw_8bit", "lion", "sgd", "adafactor"],
    "gradient_checkpointing": [True, False], "checkpoint_offload": ["none", "cpu"], "checkpoint_reentrant": [True, False],
    "attention": ["sdpa", "flash", "eager"], "max_grad_norm": [None, 1.0, 0.5], "loss": ["full", "fused", "kernel"],
    "fused_kernels": [False, True, "+lora"], "compile": [False, True],
}  # fmt: skip
ADAPTER = {
    "rank": [8, 64], "alpha": [16, 7], "dropout": [0.0, 0.1], "target_modules": ["all-linear", ["q_proj", "v_proj"]],
    "adapter_dtype": ["float32", "bfloat16"], "use_dora": [False, True], "use_rslora": [False, True],
    "modules_to_save": [[], ["lm_head"]],
}  # fmt: skip


def choices(words):
    return st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in words.items()})


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=25, deadline=None)
@given(own=choices(OWN), adapter=choices(ADAPTER), method=st.sampled_from(["full", "lora", "qlora"]))
def test_what_is_written_reads_back(name, own, adapter, method):
    recipe = {**own, **({} if method == "full" else {"lora": adapter})}
    body = {"model": "Qwen/Qwen2.5-0.5B", "method": method, "recipe": recipe, "to": name}
    try:
        answer = export_answer(body)
    except InvalidInput as refused:
        assert refused.field in WORD or refused.field == "method"
        return
    question, _ = read_question({"model": body["model"], "method": method, "recipe": {"trainer": name, **recipe}})
    back = check_answer({"files": {"train.yaml": answer["text"]}})
    assert (back["method"], back["blockers"], back["unknown"], back["approximate"]) == (method, [], [], [])
    asked = question.estimate()
    assert back["peak"]["allocated_bytes"] == asked.allocated_bytes
    assert back["estimate"]["parameters"]["trainable"] == asked.trainable_parameters


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_a_trainers_own_defaults_can_be_said(name, method):
    answer = export_answer({"model": "Qwen/Qwen2.5-0.5B", "method": method, "to": name})
    assert answer["recipe"]["trainer"] == name
    assert "Qwen/Qwen2.5-0.5B" in answer["text"]


@pytest.mark.parametrize("name", WRITERS)
def test_several_gpus_are_said(name):
    recipe = {"parallelism": {"gpus": 4, "strategy": "zero3", "offload": "optimizer"}}
    answer = export_answer({"model": "Qwen/Qwen2.5-0.5B", "method": "lora", "recipe": recipe, "to": name})
    assert "4" in answer["command"]
    read = check_answer({"files": {"t.yaml": answer["text"]}, "gpus": 4})["recipe"]["parallelism"]
    assert read.items() >= recipe["parallelism"].items()


def test_words_without_a_key_are_refused_by_name():
    with pytest.raises(InvalidInput, match="TRL cannot say: loss=kernel") as refused:
        export_answer({"model": "7B", "method": "lora", "recipe": {"loss": "kernel"}, "to": "trl"})
    assert refused.value.field == "loss"
    with pytest.raises(InvalidInput, match="no export to"):
        export_answer({"model": "7B", "method": "lora", "to": "keras"})
