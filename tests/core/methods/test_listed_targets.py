"""`all-linear` of trainers that list the linear layers themselves: counts are PEFT's own for that list, on the meta device."""

import json
import re
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from loralens.core.answer.answers import memory_answer
from loralens.core.errors import InvalidInput
from loralens.core.question.recipe import Recipe
from loralens.lab.trace.build import adapt, build_on_meta
from loralens.trainers.check import check_answer
from loralens.trainers.export import export_answer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::RuntimeWarning")
CHINESE = json.loads(Path("frontend/src/shared/ui/ledger.zh-CN.json").read_text("utf-8"))["assumptions"]
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
         "vocab_size": 100, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}  # fmt: skip
MOE = {**SMALL, "moe_intermediate_size": 48, "num_experts": 8, "num_experts_per_tok": 2}
DEEP = {**SMALL, "num_key_value_heads": 4, "moe_intermediate_size": 48, "n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 1,
        "topk_group": 1, "first_k_dense_replace": 1, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8, "v_head_dim": 8}  # fmt: skip
CONFIGS = {
    "qwen3-moe": {"model_type": "qwen3_moe", "head_dim": 16, **MOE},
    "qwen3-moe, a dense layer": {"model_type": "qwen3_moe", "head_dim": 16, "mlp_only_layers": [0], **MOE},
    "qwen2-moe": {"model_type": "qwen2_moe", "shared_expert_intermediate_size": 40, **MOE},
    "mixtral": {"model_type": "mixtral", "num_local_experts": 4, **SMALL},
    "olmoe": {"model_type": "olmoe", **MOE},
    "deepseek-v3": {"model_type": "deepseek_v3", **DEEP},
    "dense": {"model_type": "llama", **SMALL},
}
NONE, SOME = "stacked experts are no layers and get no adapter", "for the stacked experts, which get adapters"
SAID = {"qwen3-moe": NONE, "qwen3-moe, a dense layer": SOME, "mixtral": NONE, "olmoe": NONE, "deepseek-v3": SOME}


def model_of(config):
    entries = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(CONFIG_MAPPING[config["model_type"]](**entries))


def by_class(model):
    """LLaMA-Factory's model/model_utils/misc.py, ms-swift's swift/utils: Linear is in the class's name; without the head."""
    found = [(name, type(part).__name__) for name, part in model.named_modules() if "lm_head" not in name]
    return {name.split(".")[-1] for name, kind in found if "Linear" in kind and "Embedding" not in kind}


def by_type(model):
    """Axolotl's loaders/adapter.py: torch's linear layers, and classes that are called so; without the output embedding."""
    head = model.get_output_embeddings()
    linears = [
        (name, part)
        for name, part in model.named_modules()
        if isinstance(part, torch.nn.Linear) or "Linear" in type(part).__name__
    ]
    return {name.split(".")[-1] for name, part in linears if part is not head}


def pefts(config, targets):
    model = model_of(config)
    wanted = LoraConfig(r=4, task_type="CAUSAL_LM", target_modules=targets(model) if callable(targets) else targets)
    return get_peft_model(model, wanted).get_nb_trainable_parameters()[0]


def own(config, **words):
    recipe = {
        "sequence_length": 16,
        **words,
        "lora": {"rank": 4, "dropout": 0.0, "target_modules": "all-linear", **words.get("lora", {})},
    }
    return memory_answer({"config": config, "method": "lora", "recipe": recipe}, verdicts=False)["estimates"][0]


RULES = {"llama-factory": by_class, "ms-swift": by_class, "axolotl": by_type}


@pytest.mark.parametrize("name", CONFIGS)
def test_counts_are_pefts_for_the_trainers_list(name):
    config = CONFIGS[name]
    assert own(config)["parameters"]["trainable"] == pefts(config, "all-linear")
    for trainer, rule in RULES.items():
        found = own(config, trainer=trainer)
        assert found["parameters"]["trainable"] == pefts(config, rule), trainer
        said = [text for text in found["assumptions"] if "a list of the linear layers' names" in text]
        assert len(said) == (name in SAID) and all(SAID[name] in text for text in said)
        assert all(any(re.fullmatch(pattern, text) for pattern, _ in CHINESE) for text in said)


def test_a_trace_lists_them_too():
    recipe = Recipe.from_mapping({"trainer": "ms-swift", "lora": {"rank": 4, "target_modules": "all-linear"}})
    for name in ("qwen3-moe", "deepseek-v3"):
        entries = {key: value for key, value in CONFIGS[name].items() if key != "model_type"}
        model = build_on_meta(CONFIG_MAPPING[CONFIGS[name]["model_type"]](**entries), recipe)
        traced = sum(part.numel() for part in adapt(model, "lora", recipe).parameters() if part.requires_grad)
        assert traced == pefts(CONFIGS[name], by_class)


def test_dropout_is_refused_only_where_experts_are_adapted():
    dropout = {"lora": {"dropout": 0.1}}
    assert own(CONFIGS["qwen3-moe"], trainer="ms-swift", **dropout)["parameters"]["trainable"]
    for name, trainer in (("qwen3-moe", "trl"), ("deepseek-v3", "ms-swift")):
        with pytest.raises(InvalidInput, match="no dropout for adapters on experts"):
            own(CONFIGS[name], trainer=trainer, **dropout)


ATTENTION = 8 * 48 * (2 * (2048 + 4096) + 2 * (2048 + 512))  # q, o, k and v of Qwen3-30B-A3B's layers, at rank 8
FILES = {
    "llama-factory": "model_name_or_path: Qwen/Qwen3-30B-A3B\nstage: sft\nfinetuning_type: lora\nlora_rank: 8\nlora_target: all\n"
    "cutoff_len: 512\n",
    "ms-swift": "model: Qwen/Qwen3-30B-A3B\ntuner_type: lora\nlora_rank: 8\ntarget_modules: all-linear\nmax_length: 512\n",
    "axolotl": "base_model: Qwen/Qwen3-30B-A3B\nadapter: lora\nlora_r: 8\nlora_target_linear: true\nsequence_len: 512\ndatasets: x\n",
}


@pytest.mark.parametrize("trainer", FILES)
def test_a_file_counts_what_its_trainer_adapts(trainer):
    found = check_answer({"files": {"train.yaml": FILES[trainer]}})
    assert found["trainer"]["name"] == trainer
    assert found["estimate"]["parameters"]["trainable"] == ATTENTION


def test_an_export_that_would_adapt_something_else_is_refused():
    def export(to, **recipe):
        recipe = {"lora": {"target_modules": "all-linear"}, **recipe}
        return export_answer({"model": "Qwen/Qwen3-30B-A3B", "method": "lora", "recipe": recipe, "to": to})

    assert "lora_target: all" in export("llama-factory")["text"]
    assert "lora_target: all" in export("llama-factory", trainer="ms-swift", loss="full")["text"]
    for to, words in (
        ("llama-factory", {"trainer": "none", "checkpoint_reentrant": True}),
        ("transformers", {"trainer": "llama-factory"}),
    ):
        with pytest.raises(InvalidInput, match="cannot say: target_modules=all-linear") as refused:
            export(to, **words)
        assert refused.value.field == "target_modules"
