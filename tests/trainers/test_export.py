"""A recipe as a trainer's config or script reads back as the same recipe; what a trainer cannot say is refused by name."""

from __future__ import annotations

import random
import runpy
import warnings

import pytest
from core.answer.test_remarks import SAMPLES
from trainers.roundtrip import drawn, refused_word

from loralens.core.errors import InvalidInput, LoraLensError
from loralens.core.question.recipe import ALL_WORDS
from loralens.planner.question import read_question
from loralens.trainers.check import check_answer
from loralens.trainers.export import export_answer
from loralens.trainers.targets import TARGETS

TINY = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 128,
    "max_position_embeddings": 128, "tie_word_embeddings": False,
}  # fmt: skip
STAND_IN = "class Dataset:\n    from_dict = staticmethod(lambda c: [dict(zip(c, row)) for row in zip(*c.values())])\n"
"""The one package that the tests do without."""


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_written_reads_back(name):
    questions = drawn(name, random.Random(name))
    assert sum(refused_word(next(questions), name) is None for _ in range(20)) >= 2


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "verl"])
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_a_trainers_own_defaults_can_be_said(name, method):
    model, named = ("llama-3.2-1b", "Llama-3.2-1B") if name == "torchtune" else ("qwen2.5-0.5b", "Qwen2.5-0.5B")
    answer = export_answer({"model": model, "method": method, "to": name})
    assert answer["recipe"]["trainer"] == TARGETS[name].trainer
    assert named in answer["text"]
    assert (answer["serve"]["command"] is None) == (method == "full")


@pytest.mark.parametrize("name", ["axolotl", "llama-factory", "trl", "ms-swift", "trl-script", "transformers"])
def test_several_gpus_are_said(name):
    recipe = {"parallelism": {"gpus": 4, "strategy": "zero3", "offload": "optimizer"}}
    answer = export_answer({"model": "Qwen/Qwen2.5-0.5B", "method": "lora", "recipe": recipe, "to": name})
    assert "4" in answer["command"]
    read = check_answer({"files": {answer["file"]: answer["text"]}, "gpus": 4})["recipe"]["parallelism"]
    assert read.items() >= recipe["parallelism"].items()


@pytest.mark.parametrize("name", ["axolotl", "llama-factory", "trl", "ms-swift", "transformers"])
def test_deepspeeds_own_sizes_are_said(name):
    shared = {
        "gpus": 8,
        "strategy": "zero3",
        "hpz_partition": 4,
        "reduce_bucket_size": 50_000_000,
        "persistence_threshold": "auto",
    }
    answer = export_answer(
        {"model": "Qwen/Qwen2.5-0.5B", "method": "lora", "recipe": {"parallelism": shared}, "to": name}
    )
    read = check_answer({"files": {answer["file"]: answer["text"]}, "gpus": 8})["recipe"]["parallelism"]
    assert read.items() >= shared.items()


@pytest.mark.parametrize("name", ["axolotl", "llama-factory", "trl", "ms-swift", "trl-script", "transformers"])
@pytest.mark.parametrize("offload", ["optimizer", "parameters"])
def test_what_waits_on_a_drive_is_said(name, offload):
    shared = {
        "gpus": 8,
        "strategy": "zero3",
        "offload": offload,
        "offload_device": "nvme",
        "sub_group_size": 100_000_000,
    }
    shared |= {"param_buffer_size": 200_000_000, "max_in_cpu": 0} if offload == "parameters" else {}
    body = {"model": "Qwen/Qwen2.5-0.5B", "method": "lora", "recipe": {"parallelism": shared}, "to": name}
    answer = export_answer(body)
    read = check_answer({"files": {answer["file"]: answer["text"]}, "gpus": 8})["recipe"]["parallelism"]
    assert read.items() >= shared.items()


@pytest.mark.parametrize("name", ["axolotl", "llama-factory", "trl"])
def test_divided_experts_are_refused_by_name(name):
    recipe = {"parallelism": {"gpus": 4, "strategy": "fsdp2", "ep": 4}, "lora": {"target_modules": ["q_proj"]}}
    with pytest.raises(InvalidInput, match="cannot say: ep=4") as refused:
        export_answer({"model": "mixtral-8x7b", "method": "lora", "recipe": recipe, "to": name})
    assert refused.value.field == "ep"


@pytest.mark.parametrize("name", ["trl", "trl-script", "axolotl"])
@pytest.mark.parametrize("kind", ["reward", "contrastive", "distillation"])
def test_an_objective_without_an_export_is_refused_by_name(name, kind):
    recipe = (
        {"objective": kind, "teacher": {"model": "qwen2.5-1.5b"}} if kind == "distillation" else {"objective": kind}
    )
    with pytest.raises(InvalidInput, match="cannot say: objective=") as refused:
        export_answer({"model": "qwen2.5-0.5b", "method": "lora", "recipe": recipe, "to": name})
    assert refused.value.field == "objective"


@pytest.mark.parametrize("name", ["trl", "trl-script"])
@pytest.mark.parametrize("kind", ["dpo", "kto", "orpo", "grpo"])
def test_other_objectives_have_a_script_and_what_trl_runs_a_file(name, kind):
    body = {"model": "qwen2.5-0.5b", "method": "lora", "recipe": {"objective": kind, "micro_batch_size": 4}}
    if (name, kind) == ("trl", "orpo"):  # experimental: no command runs it
        with pytest.raises(InvalidInput, match="objective=orpo"):
            export_answer({**body, "to": name})
        return
    answer = export_answer({**body, "to": name})
    assert answer["command"] == ("python train.py" if name == "trl-script" else f"trl {kind} --config {kind}.yaml")
    assert refused_word({**body, "recipe": answer["recipe"]}, name) is None


@pytest.mark.parametrize("name", ["trl", "trl-script", "transformers"])
def test_fsdp2_gathers_in_the_mixed_precision_where_nothing_is_said(name):
    recipe = {"autocast": "bfloat16", "parallelism": {"gpus": 2, "strategy": "fsdp2"}}
    answer = export_answer({"model": "qwen2.5-0.5b", "method": "full", "recipe": recipe, "to": name})
    assert answer["recipe"]["parallelism"]["gather_dtype"] == "bfloat16"
    recipe["parallelism"]["gather_dtype"] = "float32"
    with pytest.raises(InvalidInput, match="gather_dtype=float32"):
        export_answer({"model": "qwen2.5-0.5b", "method": "full", "recipe": recipe, "to": name})


def test_groups_of_completions_that_cannot_be_are_refused():
    recipe = {"objective": "grpo", "micro_batch_size": 3}
    with pytest.raises(InvalidInput, match="3 at a time"):
        export_answer({"model": "qwen2.5-0.5b", "method": "lora", "recipe": recipe, "to": "trl"})


GRPO = {"objective": "grpo", "micro_batch_size": 8}
LEARNED_BY_VERL = {"model": "Qwen/Qwen2.5-0.5B", "method": "lora", "to": "verl"}


@pytest.mark.parametrize("kind, estimator", [("grpo", "grpo"), ("rloo", "rloo"), ("ppo", "gae")])
def test_verls_own_defaults_can_be_said(kind, estimator):
    answer = export_answer({**LEARNED_BY_VERL, "recipe": {"objective": kind, "micro_batch_size": 8}})
    assert f"algorithm.adv_estimator={estimator} " in answer["text"]
    assert (answer["file"], answer["command"]) == ("train.sh", "bash train.sh")
    said = answer["recipe"]
    assert (said["rollout"]["engine"], said["rollout"]["rows"], said["parallelism"]["strategy"]) == ("vllm", 8, "fsdp")


@pytest.mark.parametrize("named, path", [("qwen2.5-1.5b", "Qwen/Qwen2.5-1.5B"), ("qwen2.5-0.5b", "Qwen/Qwen2.5-0.5B")])
def test_a_value_model_is_written_by_its_name_on_the_hub(named, path):
    recipe = {"objective": "ppo", "value": named, "reward_model": "qwen2.5-1.5b"}
    text = export_answer({**LEARNED_BY_VERL, "recipe": recipe})["text"]
    assert f"critic.model.path={path} " in text
    assert "reward_model.model.path=Qwen/Qwen2.5-1.5B " in text


@pytest.mark.parametrize(
    "method, recipe, word",
    [
        ("lora", {}, "objective"),
        ("lora", {**GRPO, "rollout": "transformers"}, "rollout"),
        ("lora", {**GRPO, "rollout": {"engine": "vllm", "sleep_level": 2}}, "sleep_level"),
        ("lora", {**GRPO, "rollout": {"engine": "vllm", "trainer_offload": "parameters"}}, "trainer_offload"),
        ("lora", {**GRPO, "loss": "fused_head"}, "loss"),
        ("lora", {**GRPO, "micro_batch_size": 3}, "micro_batch_size"),
        ("lora", {**GRPO, "gradient_accumulation_steps": 4, "rollout": {"engine": "vllm", "rows": 8}}, "rollout_rows"),
        ("full", {**GRPO, "objective": {"type": "grpo", "reference": "copy"}}, "reference"),
        ("lora", {"objective": "ppo", "value": {"together": True}}, "value_together"),
        ("qlora", GRPO, "method"),
    ],
)
def test_what_verl_cannot_say_is_refused_by_name(method, recipe, word):
    with pytest.raises(InvalidInput) as refused:
        export_answer({**LEARNED_BY_VERL, "method": method, "recipe": recipe})
    assert refused.value.field == word


def test_words_without_a_key_are_refused_by_name():
    with pytest.raises(InvalidInput, match="TRL cannot say: loss=kernel") as refused:
        export_answer({"model": "7B", "method": "lora", "recipe": {"loss": "kernel"}, "to": "trl"})
    assert refused.value.field == "loss"
    with pytest.raises(InvalidInput, match="no export to"):
        export_answer({"model": "7B", "method": "lora", "to": "keras"})
    with pytest.raises(InvalidInput, match="no builder of qwen2_5 with packed weights"):
        export_answer({"model": "qwen2.5-0.5b", "method": "qlora", "to": "torchtune"})
    with pytest.raises(InvalidInput, match="torchtune has no builder of"):
        export_answer({"model": "gpt2", "method": "lora", "to": "torchtune"})


@pytest.mark.parametrize(
    "lora, says",
    [
        ({"rank": 20}, "--max-lora-rank 32"),
        ({"use_dora": True}, "does not load DoRA"),
        ({"modules_to_save": ["lm_head"]}, "no modules_to_save"),
        ({"rank": 1024}, "ranks up to 512"),
    ],
)
def test_vllm_serves_the_adapter_or_the_reason_is_said(lora, says):
    serve = export_answer({"model": "qwen2.5-0.5b", "method": "lora", "recipe": {"lora": lora}, "to": "axolotl"})[
        "serve"
    ]
    assert says in (serve["command"] or serve["says"])
    assert (serve["command"] is None) != (serve["says"] is None)


def test_the_script_runs_a_step_with_the_predicted_parameters(tmp_path, monkeypatch, capsys):
    """transformers' Trainer and PEFT on a tiny model; what the script itself counts is what was computed."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    lora = {"rank": 4, "target_modules": "all-linear", "modules_to_save": ["lm_head"]}
    recipe = {"trainer": "transformers", "sequence_length": 16, "micro_batch_size": 2, "weights_dtype": "float32",
              "autocast": None, "gradient_checkpointing": True, "lora": lora}  # fmt: skip
    body = {"config": TINY, "method": "lora", "recipe": recipe}
    AutoModelForCausalLM.from_config(LlamaConfig(**TINY)).save_pretrained(tmp_path / "tiny")
    answer = export_answer({**body, "to": "transformers"})
    named = next(line for line in answer["text"].splitlines() if line.startswith("MODEL = "))
    text = answer["text"].replace(named, f"MODEL = {str(tmp_path / 'tiny')!r}")
    script = tmp_path / "train.py"
    script.write_text(text.replace("from datasets import Dataset\n", STAND_IN))
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, which the script's user sees
        runpy.run_path(str(script))
    question, _ = read_question(body)
    said = capsys.readouterr().out
    assert f"trainable parameters: {question.estimate().trainable_parameters:,}\n" in said
    assert "train_loss" in said


SAID = SAMPLES | {
    "target_modules": ["o_proj"], "modules_to_save": ["lm_head"], "target_parameters": ["lm_head.weight"],
    "machine_gpus": [8], "host_memory": [64],
    "rank_pattern": [{"q_proj": 24}], "alpha_pattern": [{"q_proj": 24}],
}  # fmt: skip
NOT_OF_A_FILE = ("trainer", "stack", "target_parameters")
"""Whose file it is, and what is installed beside it; parameters by name are refused where a model has no such experts."""


def at(recipe, path):
    for name in path.split("."):
        recipe = recipe[name] if isinstance(recipe, dict) else None
    return recipe


def placed(path, value):
    group, _, name = path.rpartition(".")
    return {group: {name: value}} if group else {name: value}


@pytest.mark.parametrize("name", TARGETS)
def test_every_word_is_said_or_refused_by_name(name):
    model = "llama-3.2-1b" if name == "torchtune" else "qwen2.5-0.5b"
    base = (
        {"objective": {"type": "grpo"}, "sequence_length": 1024, "labelled_tokens": 512, "micro_batch_size": 8}
        if name == "verl"
        else {}
    )
    own = {
        method: export_answer({"model": model, "method": method, "to": name, "recipe": base})["recipe"]
        for method in ("full", "lora")
    }
    for row in ALL_WORDS:
        if row.name in NOT_OF_A_FILE:
            continue
        # full fine-tuning: where an adapter's words mean nothing
        asked = {"model": model, "method": "full" if row.group in ("lora", "quantization") else "lora", "to": name}
        usual = at(own[asked["method"]], row.path)
        if (
            usual is None and row.group == "quantization"
        ):  # where nothing is packed, a packing's word at its default says nothing
            usual = row.default
        value = next(
            one for one in (*SAID.get(row.name, row.kind.choices or (True, False)), row.default) if one != usual
        )
        try:
            answer = export_answer({**asked, "recipe": {**base, **placed(row.path, value)}})
        except LoraLensError:
            continue
        back = check_answer({"files": {answer["file"]: answer["text"]}})
        assert at(back["recipe"], row.path) == at(answer["recipe"], row.path) != usual, (row.name, value)
