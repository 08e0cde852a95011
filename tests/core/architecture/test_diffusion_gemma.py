"""DiffusionGemma: transformers has no loss for it; its parameters are counted whole, and the rest is refused with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from loralens.core.answer.answers import memory_answer, parameters_answer
from loralens.core.errors import UnsupportedArchitecture

TEXT = {
    "model_type": "diffusion_gemma_text", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 100, "num_experts": 4,
    "top_k_experts": 2, "moe_intermediate_size": 24, "layer_types": ["sliding_attention", "full_attention"],
}  # fmt: skip
VISION = {
    "model_type": "gemma4_vision", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip


def config_of(**text: Any) -> dict[str, Any]:
    return {"model_type": "diffusion_gemma", "text_config": {**TEXT, **text}, "vision_config": VISION}


@pytest.mark.parametrize(
    "text",
    [
        {},
        {"global_head_dim": 32, "num_global_key_value_heads": 1},
        {"per_layer_config": {"1": {"head_dim": 64, "num_key_value_heads": 1}}},
    ],
)
def test_the_count_is_the_one_of_transformers_with_what_is_shared_once(text: dict[str, Any]) -> None:
    import torch
    from transformers import AutoConfig
    from transformers.models.diffusion_gemma.modeling_diffusion_gemma import DiffusionGemmaForBlockDiffusion

    config = config_of(**text)
    found = parameters_answer({"config": config, "method": "full"})
    with torch.device("meta"):
        whole = DiffusionGemmaForBlockDiffusion(AutoConfig.for_model(**config))
    assert found["exact"]
    assert found["parameters"]["total"] == sum(parameter.numel() for parameter in whole.parameters())


@pytest.mark.parametrize(
    "method, why", [("full", "transformers computes no loss"), ("lora", "PEFT gives each of the two")]
)
def test_the_step_is_refused_with_the_reason(method: str, why: str) -> None:
    with pytest.raises(UnsupportedArchitecture, match=why):
        memory_answer({"config": config_of(), "method": method})
