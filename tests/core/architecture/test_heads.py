"""Heads beside the language model's are those of transformers, parameter by parameter, and PEFT trains the same ones."""

from __future__ import annotations

import pytest

from loralens.core import methods
from loralens.core.answer.estimate import estimate
from loralens.core.architecture.heads import head_of
from loralens.core.architecture.registry import build, count_parameters
from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.question.recipe import Recipe
from loralens.core.step.counts import Counts
from loralens.core.step.held import held_parameters

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

SMALL = {
    "hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 6, "vocab_size": 200,
    "pad_token_id": 0, "max_position_embeddings": 64,
}  # fmt: skip
CONFIGS = {
    "llama": {**SMALL, "model_type": "llama", "num_key_value_heads": 2},
    "gpt_neox": {**SMALL, "model_type": "gpt_neox"},
    "gpt2": {"model_type": "gpt2", "n_embd": 96, "n_layer": 2, "n_head": 6, "vocab_size": 200, "pad_token_id": 0},
    "bert": {**SMALL, "model_type": "bert"},
    "roberta": {**SMALL, "model_type": "roberta"},
    "distilbert": {
        "model_type": "distilbert",
        "dim": 96,
        "hidden_dim": 160,
        "n_layers": 2,
        "n_heads": 6,
        "vocab_size": 200,
    },
    "modernbert": {**SMALL, "model_type": "modernbert"},
    "electra": {**SMALL, "model_type": "electra"},
    "mpnet": {**SMALL, "model_type": "mpnet"},
    "deberta": {**SMALL, "model_type": "deberta"},
    "deberta-v2": {**SMALL, "model_type": "deberta-v2"},
    "layoutlm": {**SMALL, "model_type": "layoutlm"},
}
TARGETS = {
    "llama": ["q_proj"], "gpt_neox": ["query_key_value"], "gpt2": ["c_attn"], "bert": ["query"], "roberta": ["query"],
    "distilbert": ["q_lin"], "modernbert": ["Wqkv"], "electra": ["query"], "mpnet": ["q"], "deberta-v2": ["query_proj"],
    "layoutlm": ["query"], "deberta": ["in_proj"],
}  # fmt: skip
CLASSES = {
    "sequence_classification": ("AutoModelForSequenceClassification", "SEQ_CLS", 5),
    "reward": ("AutoModelForSequenceClassification", "SEQ_CLS", 1),
    "token_classification": ("AutoModelForTokenClassification", "TOKEN_CLS", 5),
    "question_answering": ("AutoModelForQuestionAnswering", "QUESTION_ANS", 2),
    "embedding": ("AutoModel", "FEATURE_EXTRACTION", 2),
}


def real(family, head):
    import torch
    import transformers

    name, _, labels = CLASSES[head]
    if (family, head) == ("layoutlm", "question_answering"):  # transformers lists it for documents alone
        name = "AutoModelForDocumentQuestionAnswering"
    entries = {key: value for key, value in CONFIGS[family].items() if key != "model_type"}
    config = transformers.AutoConfig.for_model(family, **entries, num_labels=labels)
    with torch.device("meta"):
        return getattr(transformers, name).from_config(config)


def counted(family, head, method):
    asked = {"head": head, "num_labels": CLASSES[head][2], "lora": {"rank": 4, "target_modules": TARGETS[family]}}
    recipe = Recipe.from_mapping(asked)
    root = build(CONFIGS[family], head=recipe.head, num_labels=recipe.num_labels)
    methods.prepare(method, root, recipe)
    counts = Counts.of(held_parameters(root), recipe.weights_dtype)
    return counts.total.at(1, 1, 4), counts.trainable.at(1, 1, 4)


@pytest.mark.parametrize("head", CLASSES)
@pytest.mark.parametrize("family", CONFIGS)
def test_counts_are_those_of_transformers_and_peft(family, head):
    pytest.importorskip("peft")
    import torch
    from peft import LoraConfig, get_peft_model

    model = real(family, head)
    total = sum(p.numel() for p in model.parameters())
    assert counted(family, head, "full") == (total, total)
    with torch.device("meta"):
        adapted = get_peft_model(model, LoraConfig(task_type=CLASSES[head][1], r=4, target_modules=TARGETS[family]))
    sizes = [(p.numel(), p.requires_grad) for p in adapted.parameters()]
    trainable = sum(size for size, trained in sizes if trained)
    assert counted(family, head, "lora") == (sum(size for size, _ in sizes), trainable)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("BertForSequenceClassification", "sequence_classification"), ("LlamaForTokenClassification", "token_classification"),
        ("BertForQuestionAnswering", "question_answering"), ("BertModel", "embedding"), ("GPT2LMHeadModel", "lm"),
        ("BertForMaskedLM", "lm"), ("QWenLMHeadModel", "lm"),
    ],
)  # fmt: skip
def test_the_configs_architectures_name_the_head(name, head):
    assert head_of({"architectures": [name]}, None) == head
    assert head_of({"architectures": [name]}, "lm") == "lm"


def test_bert_base_cased_by_its_architectures():
    """Published totals: transformers' own on the meta device."""
    config = {"model_type": "bert", "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
              "num_attention_heads": 12, "vocab_size": 28996, "max_position_embeddings": 512, "type_vocab_size": 2}  # fmt: skip
    totals = {
        "BertForSequenceClassification": 108_311_810,
        "BertForQuestionAnswering": 107_721_218,
        "BertModel": 108_310_272,
    }
    assert {name: count_parameters({**config, "architectures": [name]}).total for name in totals} == totals


def test_a_head_that_there_is_none_of_is_refused():
    with pytest.raises(UnsupportedArchitecture, match="gemma2 with a head for question answering"):
        build({**SMALL, "model_type": "gemma2", "num_key_value_heads": 2}, head="question_answering")


def test_all_linear_beside_a_saved_head_is_refused_as_peft_does():
    with pytest.raises(InvalidInput, match="PEFT refuses all-linear"):
        recipe = Recipe.from_mapping({"lora": {"target_modules": "all-linear"}})
        methods.prepare("lora", build(CONFIGS["llama"], head="token_classification"), recipe)


def test_a_family_that_runs_its_head_itself_has_no_vector_per_sample():
    with pytest.raises(UnsupportedArchitecture, match="embedding"):
        estimate("t5-base", head="embedding")
