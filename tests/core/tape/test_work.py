"""Floating-point operations of a step, against those that PyTorch's own counter sees in the real models.

Oracle: torch 2.13 utils/flop_counter.py `FlopCounterMode`, over transformers and PEFT.
"""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from loralens.core.answer.counted import count
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe
from loralens.core.tape.cost import NARROW, UNPACKING, WEIGHT_GRADIENTS
from loralens.core.tape.size import monomial_values

BATCH, LENGTH, RANK = 2, 64, 8

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
LLAMA = {
    "model_type": "llama", "vocab_size": 1000, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 5,
    "num_attention_heads": 8, "num_key_value_heads": 4, "tie_word_embeddings": False, "architectures": ["LlamaForCausalLM"],
}  # fmt: skip
GPT2 = {
    "model_type": "gpt2", "vocab_size": 1000, "n_embd": 64, "n_layer": 5, "n_head": 8, "n_positions": 512,
    "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "architectures": ["GPT2LMHeadModel"],
}  # fmt: skip


def counted(config, method, *, checkpointing):
    """What the counter sees in one step of the real model."""
    values = {**config}
    settings = AutoConfig.for_model(values.pop("model_type"), **values)
    settings._attn_implementation = "eager"
    settings.use_cache = False
    model = AutoModelForCausalLM.from_config(settings, dtype=torch.float32)
    if method == "lora":
        model = get_peft_model(
            model, LoraConfig(r=RANK, lora_alpha=16, target_modules="all-linear", fan_in_fan_out=config is GPT2)
        )
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        if method == "lora":
            model.enable_input_require_grads()
    ids = torch.zeros(BATCH, LENGTH, dtype=torch.long)
    model.train()
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    return counter.get_total_flops()


def planned(config, method, **words):
    """What the walk counts."""
    lora = {"rank": RANK, "alpha": 16, "target_modules": "all-linear"} if method == "lora" else {}
    recipe = Recipe.from_mapping({
        "micro_batch_size": BATCH, "sequence_length": LENGTH, "weights_dtype": "float32", "autocast": None,
        "attention": "eager", "optimizer": "sgd", **words, **({"lora": lora} if lora else {}),
    })  # fmt: skip
    return count(resolve(config=config), method, recipe).work


def operations(work):
    values = monomial_values(BATCH, LENGTH, RANK)
    return sum(
        sum(c * v for c, v in zip(w.flops, values, strict=True)) for _, cause, _, w in work.rows() if cause != UNPACKING
    )


def test_lora_has_no_weight_gradients():
    """Eager attention multiplies activations: their gradients are nobody's weights."""
    causes = {cause for _, cause, _, _ in planned(LLAMA, "lora", gradient_checkpointing=False).rows()}
    assert WEIGHT_GRADIENTS not in causes
    assert NARROW in causes


@pytest.mark.parametrize(
    ("config", "method", "checkpointing"),
    [(LLAMA, "full", False), (LLAMA, "lora", True), (GPT2, "full", True), (GPT2, "lora", False)],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else str(value),
)
def test_operations_are_those_that_pytorch_counts(config, method, checkpointing):
    work = planned(config, method, gradient_checkpointing=checkpointing)
    assert operations(work) == counted(config, method, checkpointing=checkpointing)


def test_a_region_without_gradients_does_what_one_with_them_does():
    """Reentrant checkpointing runs the layers' forward under `no_grad`: the same kernels, over the same bytes."""

    def forward(*, reentrant):
        work = planned(LLAMA, "lora", gradient_checkpointing=True, checkpoint_reentrant=reentrant)
        return {
            key[1:]: (done.flops, done.bytes, done.kernels) for key, done in work.done.items() if key[0] == "forward"
        }

    assert forward(reentrant=True) == forward(reentrant=False)
