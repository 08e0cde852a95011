"""Megatron Core's model code and its distributed optimizer; its published runs are in docs/accuracy/parallel-runs.jsonl."""

import pytest

from loralens.core.answer.estimate import estimate
from loralens.core.errors import InvalidInput, UnsupportedArchitecture

OWN = {"stack": {"megatron": "0.15"}, "strategy": "megatron", "autocast": None, "gradient_checkpointing": False}


@pytest.mark.parametrize("model", ["llama-3.1-8b", "qwen2.5-7b", "mistral-7b-v0.3"])
def test_fused_layers_have_the_parameters_of_the_separate_ones(model):
    separate = estimate(model, "full")
    assert estimate(model, "full", gpus=8, **OWN).total_parameters == separate.total_parameters


@pytest.mark.parametrize(("gpus", "copies", "bytes_each"), [(8, 1, 7.5), (8, 4, 12), (8, 8, 18), (64, 1, 6 + 12 / 64)])
def test_bytes_of_a_parameter(gpus, copies, bytes_each):
    """Source: Megatron-LM docs/user-guide/features/dist_optimizer.md: 6 + 12/d for bf16 weights and fp32 gradients, 18 undivided."""
    found = estimate("llama-3.1-8b", "full", gpus=gpus, dp_replicate=copies, **OWN)
    rest = sum(found.breakdown[f"{name}_bytes"] for name in ("weights", "gradients", "optimizer_state"))
    assert rest == pytest.approx(bytes_each * found.total_parameters, rel=1e-5)


@pytest.mark.parametrize(
    ("tp", "sequence", "whole", "shared"), [(1, False, 34, 0), (4, False, 10, 24), (4, True, 0, 34)]
)
def test_a_layer_keeps_what_the_paper_says(tp, sequence, whole, shared):
    """Korthikanti et al. 2022, arXiv:2205.05198, equations 1, 2 and 4: sbh (whole + shared / t) + 5 a s^2 b / t."""
    h, heads, length, batch = 1024, 16, 512, 2
    gpt = {
        "model_type": "gpt2",
        "hidden_size": h,
        "num_attention_heads": heads,
        "vocab_size": 512,
        "max_position_embeddings": length,
    }
    words = {**OWN, "gpus": 8, "attention": "eager", "micro_batch_size": batch, "sequence_length": length}
    few, many = (
        estimate({**gpt, "num_hidden_layers": layers}, "full", tp=tp, sequence_parallel=sequence, **words)
        for layers in (6, 14)
    )
    layer = (many.breakdown["activations_bytes"] - few.breakdown["activations_bytes"]) / 8
    stated = length * batch * h * (whole + shared / tp) + 5 * heads * length**2 * batch / tp
    statistics = 2 * 2 * 4 * length * batch / (tp if sequence else 1)  # mean and 1/std of two norms
    assert layer == pytest.approx(stated + statistics, rel=1e-3)


def test_what_is_not_modelled_is_refused():
    with pytest.raises(UnsupportedArchitecture, match="fused layers"):
        estimate("llama-3.1-8b", "lora", gpus=8, **OWN)
    with pytest.raises(InvalidInput, match="loss=fused"):
        estimate("llama-3.1-8b", "full", gpus=8, loss="fused", **OWN)
    with pytest.raises(InvalidInput, match="divide"):
        estimate("llama-3.1-8b", "full", gpus=48, tp=3, **OWN)
