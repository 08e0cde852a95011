"""PEFT's words for what is adapted: counts are PEFT's own on the meta device, and what PEFT refuses is refused."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from loralens.core.answer.answers import memory_answer, parameters_answer
from loralens.core.errors import InvalidInput, LoraLensError

# PEFT calls what transformers has renamed, and warns of what merging cannot do
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
CONFIG = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
          "num_key_value_heads": 2, "vocab_size": 100}  # fmt: skip
NAMES = ["q_proj", "v_proj", "down_proj"]
WORDS = [
    {"layers_to_transform": [1, 3]}, {"layers_to_transform": 2}, {"exclude_modules": ["v_proj"]},
    {"exclude_modules": "model\\.layers\\.[01]\\..*"}, {"exclude_modules": ["layers.0.self_attn.q_proj"], "layers_to_transform": [0, 1]},
    {"lora_bias": True}, {"alpha_pattern": {"q_proj": 32}}, {"target_modules": "all-linear", "exclude_modules": ["gate_proj"]},
    {"rank_pattern": {"q_proj": 2}, "layers_to_transform": [0]}, {"trainable_token_indices": [5, 7, 99]},
]  # fmt: skip


MIXTURE = {
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 48,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "mlp_only_layers": [0],
}
STACKED = [
    {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]},
    {"target_parameters": ["mlp.experts.down_proj"], "target_modules": NAMES[:2]},
    {"target_parameters": ["experts.gate_up_proj"], "rank_pattern": {"gate_up_proj": 2}},
    {"target_parameters": ["layers.1.mlp.experts.gate_up_proj"], "target_modules": NAMES[:2]},
    {"target_parameters": ["mlp.gate.weight", "mlp.nothing"], "target_modules": ["v_proj"]},
    {"target_parameters": ["mlp.experts.gate_up_proj"], "target_modules": ["gate_proj", "up_proj", "q_proj"]},
    {"target_parameters": ["mlp.experts.down_proj"], "target_modules": "all-linear", "exclude_modules": ["experts"]},
]  # fmt: skip


def pefts(words, config=CONFIG):
    with torch.device("meta"):
        entries = {k: v for k, v in config.items() if k != "model_type"}
        model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[config["model_type"]](**entries))
    given = {**({} if "target_parameters" in words else {"target_modules": NAMES}), **words}
    return get_peft_model(model, LoraConfig(r=4, task_type="CAUSAL_LM", **given)).get_nb_trainable_parameters()


def own(words, method="lora", config=CONFIG):
    lora = {"rank": 4, **({} if "target_parameters" in words else {"target_modules": NAMES}), **words}
    found = parameters_answer({"config": config, "method": method, "recipe": {"lora": lora, "sequence_length": 16}})
    return found["parameters"]["trainable"], found["parameters"]["total"]


@pytest.mark.parametrize("words", WORDS, ids=[",".join(words) for words in WORDS])
def test_counts_are_pefts(words):
    assert own(words) == pefts(words)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("words", STACKED, ids=range(len(STACKED)))
def test_counts_of_adapters_on_parameters_are_pefts(words):
    config = {**CONFIG, **MIXTURE}
    assert own(words, config=config) == pefts(words, config)


def test_a_tied_head_has_the_trained_rows_too():
    config = {**CONFIG, "tie_word_embeddings": True}
    words = {"trainable_token_indices": [1, 2, 3, 50]}
    assert own(words, config=config) == pefts(words, config)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"trainable_token_indices": [100]}, "outside of this model's vocabulary"),
        ({"trainable_token_indices": [1], "modules_to_save": ["embed_tokens"]}, "either its rows or the whole"),
        ({"target_parameters": ["q_proj.weight"]}, "parameter model.layers.0.self_attn.q_proj.weight is not modelled"),
        ({"target_parameters": ["experts.down_proj"]}, "no parameter of this model matches target_parameters"),
        ({"target_parameters": ["mlp.experts.down_proj"], "dropout": 0.1}, "no dropout for adapters on experts"),
    ],
)
def test_what_cannot_be_is_said(words, says):
    with pytest.raises(LoraLensError, match=says) as refused:
        own(words)
    assert refused.value.hint
    assert refused.value.field.startswith("lora.")


def test_a_parameter_among_modules_is_pointed_at():
    lora = {"target_modules": ["q_proj", "mlp.experts.down_proj.nothing", "experts.gate_up_proj"]}
    config = {**CONFIG, **MIXTURE}
    found = memory_answer({"config": config, "method": "lora", "recipe": {"lora": lora, "sequence_length": 16}})
    said = [text for text in found["estimates"][0]["assumptions"] if "without effect: target_modules" in text]
    assert len(said) == 1 and said[0].endswith("PEFT ignores the name; target_parameters adapts parameters)")


@pytest.mark.parametrize(
    "words", [{"target_modules": "all-linear", "layers_to_transform": [0]}, {"lora_bias": True, "use_dora": True}]
)
def test_what_peft_refuses_is_refused(words):
    with pytest.raises(ValueError):
        pefts(words)
    with pytest.raises(InvalidInput, match="PEFT refuses"):
        own(words)


def test_numbers_of_layers_are_read_as_text_too():
    from loralens.core.question.recipe import WORD

    assert WORD["layers_to_transform"].kind.from_text("0, 2") == [0, 2]
    with pytest.raises(InvalidInput, match="numbers of layers"):
        own({"layers_to_transform": [-1]})
