"""PEFT's words for what is adapted: counts are PEFT's own on the meta device, and what PEFT refuses is refused."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig

from loralens.core.answer.answers import parameters_answer
from loralens.core.errors import InvalidInput

# PEFT calls what transformers has renamed, and warns of what merging cannot do
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
CONFIG = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
          "num_key_value_heads": 2, "vocab_size": 100}  # fmt: skip
NAMES = ["q_proj", "v_proj", "down_proj"]
WORDS = [
    {"layers_to_transform": [1, 3]}, {"layers_to_transform": 2}, {"exclude_modules": ["v_proj"]},
    {"exclude_modules": "model\\.layers\\.[01]\\..*"}, {"exclude_modules": ["layers.0.self_attn.q_proj"], "layers_to_transform": [0, 1]},
    {"lora_bias": True}, {"alpha_pattern": {"q_proj": 32}}, {"target_modules": "all-linear", "exclude_modules": ["gate_proj"]},
    {"rank_pattern": {"q_proj": 2}, "layers_to_transform": [0]},
]  # fmt: skip


def pefts(words):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(LlamaConfig(**{k: v for k, v in CONFIG.items() if k != "model_type"}))
    given = {"target_modules": NAMES, **words}
    return get_peft_model(model, LoraConfig(r=4, task_type="CAUSAL_LM", **given)).get_nb_trainable_parameters()


def own(words, method="lora"):
    lora = {"rank": 4, "target_modules": NAMES, **words}
    found = parameters_answer({"config": CONFIG, "method": method, "recipe": {"lora": lora, "sequence_length": 16}})
    return found["parameters"]["trainable"], found["parameters"]["total"]


@pytest.mark.parametrize("words", WORDS, ids=[",".join(words) for words in WORDS])
def test_counts_are_pefts(words):
    assert own(words) == pefts(words)


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
