"""Mixtures as transformers before 5 ran them: every expert an MLP of linear layers, counted by PEFT on transformers 4.57.1."""

import json
from pathlib import Path

import pytest

from loralens.core.answer.answers import memory_answer, parameters_answer
from loralens.core.architecture.moe_looped import EQUAL_SHARES, SEPARATE
from loralens.core.architecture.registry import families

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "oracles" / "separate-experts.jsonl").read_text("utf-8").splitlines()
]
OLD = {"transformers": "4.57"}


@pytest.mark.parametrize(
    "row", ROWS, ids=[f"{row['config']['model_type']}-{number}" for number, row in enumerate(ROWS)]
)
def test_counts_are_pefts(row):
    lora = {"rank": 4, "target_modules": row["targets"]}
    body = {"config": row["config"], "method": "lora", "recipe": {"stack": OLD, "lora": lora}}
    found = parameters_answer(body)["parameters"]
    assert (found["trainable"], found["total"]) == (row["trainable"], row["total"])


def test_every_family_with_a_list_of_experts_has_a_row():
    walked = {name for name, walks in families().items() if walks}
    assert set(SEPARATE) & walked <= {row["config"]["model_type"] for row in ROWS}


def asked(**stack):
    """Attention adapters on Qwen3-30B-A3B, as published for Unsloth: 17.5 GB in 4 bits."""
    lora = {"rank": 16, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}
    packed = {"type": "nf4", "prepare_kbit": False}
    recipe = {"gradient_checkpointing": True, "attention": "flash", "checkpoint_offload": "cpu", "optimizer": "adamw_8bit",
              "loss": "fused", "lora": lora, "quantization": packed, "stack": stack}  # fmt: skip
    return memory_answer({"model": "qwen3-30b-a3b", "method": "qlora", "gpu": "rtx-4090", "recipe": recipe})[
        "estimates"
    ][0]


def test_separate_experts_are_packed():
    """Source: unslothai/unsloth#2500, 2025-05: Qwen3-30B-A3B in 4 bits, 17.5 GB of VRAM."""
    old, new = asked(transformers="4.51"), asked()
    assert old["peak"]["allocated_bytes"] < 17.5 * 2**30 < old["peak"]["device_band_bytes"][1]
    assert old["fits"][0]["verdict"] == "fits"
    assert EQUAL_SHARES in old["assumptions"]
    assert new["peak"]["allocated_bytes"] > 3 * old["peak"]["allocated_bytes"]
    assert new["fits"][0]["verdict"] == "does_not_fit"
    assert any("so they are not packed" in line and "pack_experts=true" in line for line in new["assumptions"])


def test_stacked_experts_can_be_packed_too():
    recipe = {
        "quantization": {"type": "nf4", "prepare_kbit": False, "pack_experts": True},
        "gradient_checkpointing": True,
    }
    body = {"model": "qwen3-30b-a3b", "method": "qlora", "recipe": recipe}
    (packed,) = memory_answer(body)["estimates"]
    assert packed["breakdown"]["weights_bytes"] < 17 * 2**30
    assert any("unpacked whole" in line for line in packed["assumptions"])
