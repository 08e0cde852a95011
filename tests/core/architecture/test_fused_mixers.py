"""Fused kernels of hybrids: what their autograd functions save, added up by hand from `save_for_backward`, tensor by tensor.

Oracle: fla-org/flash-linear-attention 0.5.2 (`ChunkGatedDeltaRuleFunction`), state-spaces/mamba 2.3.2 (`MambaSplitConv1dScanCombinedFn`),
Dao-AILab/causal-conv1d 1.6.1 (`CausalConv1dFn`). No Triton runs in a trace, so nothing here is traced.
"""

from __future__ import annotations

from typing import Any

import pytest

from loralens.core.answer.answers import memory_answer
from loralens.core.architecture.families.delta_rule import DeltaRule
from loralens.core.architecture.families.state_space import DepthwiseConvolution, HeadedMixer
from loralens.core.errors import InvalidInput
from loralens.core.question.recipe import Recipe
from loralens.core.tape.graph import LEAF, Node, Tensor
from loralens.core.tape.ledger import Ledger
from loralens.core.tape.running import Kernels
from loralens.core.tape.size import TOKENS
from loralens.core.tape.tape import Tape
from loralens.core.tape.validity import Validity

ROWS, LENGTH = 2, 192
HYBRIDS: dict[str, dict[str, Any]] = {
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
    "qwen3_5_text": {"head_dim": 32, "layer_types": ["linear_attention", "linear_attention", "full_attention"]},
    "bamba": {"mamba_n_heads": 16, "mamba_d_head": 16, "mamba_d_state": 32, "attn_layer_indices": [1]},
    "falcon_h1": {"mamba_d_ssm": 256, "mamba_n_heads": 16, "mamba_d_head": 16, "mamba_d_state": 32},
    "kimi_linear": {},
    "jamba": {"num_experts": 4, "num_experts_per_tok": 2, "attn_layer_period": 2, "attn_layer_offset": 1},
}


def tape() -> Tape:
    recipe = Recipe.from_mapping({"micro_batch_size": ROWS, "sequence_length": LENGTH, "mixer_kernels": "fused"})
    ledger = Ledger()
    ledger.enter("forward")
    return Tape(ledger, kernels=Kernels.of(recipe), validity=Validity(recipe))


def given(t: Tape, width: int, dtype: str = "bfloat16") -> Tensor:
    x = t.new(TOKENS * width, dtype, width, "given")
    x.node = Node(LEAF, "given", "activations", (), [], lambda g: None)
    return x


def held(t: Tape) -> int:
    return t.ledger.total.at(ROWS, LENGTH, 8)


def test_the_gated_delta_rule_keeps_what_its_function_saves() -> None:
    t, rule, tokens = tape(), DeltaRule(4, 8, 32, 48), ROWS * LENGTH
    q, k, v = given(t, 4 * 32), given(t, 4 * 32), given(t, 8 * 48)
    g, beta = given(t, 8, "float32"), given(t, 8)
    before = held(t)
    out = rule(t, q, k, v, g, beta)
    normed = 2 * (4 * 32 * 2 + 4 * 4)  # q, k of length one and 1/length in float32
    saved = normed + 8 * 48 * 2 + 8 * 4 + 8 * 64 * 2  # the value, sums of decay, A; beta is there already
    assert held(t) - before == tokens * (saved + 8 * 48 * 2)  # and the output
    assert out.numel.at(ROWS, LENGTH, 8) == tokens * 8 * 48


@pytest.mark.parametrize("norm", [True, False])
def test_a_combined_scan_keeps_its_input_its_output_and_one_over_the_norm(norm: bool) -> None:
    t, tokens = tape(), ROWS * LENGTH
    mixer = HeadedMixer(256, 512, 8, 64, 2, 4, norm=norm, chunk=64)
    mixer.conv1d = DepthwiseConvolution(512 + 2 * 2 * 64, 4, True)
    for parameter in mixer.all_parameters():
        parameter.dtype, parameter.trainable = "bfloat16", False
    x = given(t, 256)
    call: Any = type("Call", (), {"recipe": Recipe.from_mapping({})})()
    before = held(t)
    out = mixer(t, x, call)
    projected = 2 * 512 + 2 * 2 * 64 + 8
    saved = projected * 2 + 512 * 2 + (2 * 4 if norm else 0)  # zxbcdt, out_x, rstd
    assert held(t) - before == tokens * (saved + 256 * 2) + 8 * 4  # the result, and -exp(A) of each head
    assert out.numel.at(ROWS, LENGTH, 8) == tokens * 256


def asked(family: str, method: str = "full", **recipe: Any) -> Any:
    config = {
        "model_type": family, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "vocab_size": 512,
        "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, **HYBRIDS.get(family, {}),
    }  # fmt: skip
    words = {"sequence_length": 256, "gradient_checkpointing": False, "mixer_kernels": "fused", **recipe}
    return memory_answer({"config": config, "method": method, "recipe": words})["estimates"][0]


@pytest.mark.parametrize("family", ["qwen3_5_text", "bamba", "falcon_h1"])
def test_kernels_keep_less_and_the_answer_says_that_they_are_not_traced(family: str) -> None:
    fused, plain = asked(family), asked(family, mixer_kernels="torch")
    assert fused["peak"]["allocated_bytes"] < plain["peak"]["allocated_bytes"]
    assert any("computed from their code, not traced" in line for line in fused["assumptions"])
    assert any("mixer_kernels=fused" in line for line in plain["assumptions"])


def test_short_convolutions_have_a_kernel_too() -> None:
    assert any("not traced" in line for line in asked("lfm2")["assumptions"])


@pytest.mark.parametrize(("family", "kernel"), [("kimi_linear", "chunk_kda"), ("jamba", "mamba_inner_fn")])
def test_a_kernel_that_is_not_modelled_is_refused(family: str, kernel: str) -> None:
    with pytest.raises(InvalidInput, match=kernel) as problem:
        asked(family)
    assert problem.value.hint == "try mixer_kernels=torch"


def test_a_combined_scan_takes_no_adapter_on_its_last_layer_and_no_packed_one() -> None:
    with pytest.raises(InvalidInput, match="adapter on out_proj"):
        asked("bamba", "lora", lora={"target_modules": "all-linear"})
    with pytest.raises(InvalidInput, match="packed one"):
        asked("bamba", "qlora", lora={"target_modules": ["q_proj"]})
    skipped = {"type": "nf4", "skip_modules": ["lm_head", "out_proj"]}
    assert asked("bamba", "qlora", lora={"target_modules": ["q_proj"]}, quantization=skipped)


def test_the_word_is_remarked_upon_where_it_means_nothing() -> None:
    idle = asked("llama")["without_effect"]
    assert [row["words"] for row in idle] == [["mixer_kernels"]]
