"""Published traces of sixteen steps, reproduced to the byte (tests/oracles/reference-steps.json)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

from loralens.lab.trace.case import TraceResult, trace

FILE = Path(__file__).parents[2] / "oracles" / "reference-steps.json"
CASES = {case["name"]: case for case in json.loads(FILE.read_text(encoding="utf-8"))["cases"]}
# which of our kinds make up each of the file's categories; those missing here are summed in "rest"
KINDS = {
    "logits_and_loss": ("logits",),
    "optimizer_state": ("optimizer_state",),
    "inputs": ("input",),
    "buffers": ("buffer",),
    "gradients": ("gradient",),
    "quantization_state": ("quantization_state",),
    "optimizer_temporaries": ("optimizer_temporary",),
    "kernel_workspace": ("workspace",),
}


def compared(result: TraceResult, expected: dict[str, Any]) -> None:
    assert (result.trainable, result.total, result.phase) == (
        expected["trainable"], expected["total"], expected["phase"],
    )  # fmt: skip
    assert result.peak_allocated_bytes == expected["peak_allocated_bytes"]
    assert result.peak_allocated_bytes_rounded == expected["peak_allocated_bytes_rounded"]
    for phase in ("forward", "backward"):
        assert result.phase_peaks[phase] == expected["phase_peaks"][phase]
    # The file reads the optimizer phase after its first event, by when one gradient is gone where nothing is
    # allocated; we count the level at its beginning too, as torch's own statistics do.
    missing = result.phase_peaks["optimizer"] - expected["phase_peaks"]["optimizer"]
    gradients = {s.size_bytes for s in result.living("optimizer") if s.kind == "gradient"}
    assert missing == 0 or missing in gradients
    for theirs, ours in KINDS.items():
        assert sum(result.kinds.get(kind, 0) for kind in ours) == expected["categories"].get(theirs, 0), theirs
    weights = result.kinds.get("weight", 0) + result.kinds.get("adapter", 0)
    theirs = expected["categories"]
    assert weights == theirs.get("parameters_frozen", 0) + theirs.get("parameters_trainable", 0)
    rest = {"activations", "autocast_weight_copies", "recomputed_activations", "backward_temporaries"}
    ours = ("activation", "weight_copy", "recomputed", "backward_temporary")
    assert sum(result.kinds.get(kind, 0) for kind in ours) == sum(theirs.get(name, 0) for name in rest)
    assert sum(result.categories.values()) == result.peak_allocated_bytes


def run(name: str) -> None:
    request = CASES[name]["request"]
    recipe = {key: value for key, value in request["recipe"].items() if key != "checkpoint_reentrant"}
    compared(trace(request["config"], request["method"], recipe), CASES[name]["expected"])


QUICK = ("llama2-7b_full_bf16", "llama3.2-1b_full", "gpt2_lora_c_attn", "llama2-7b_lora_qv_ckpt_autocast")


@pytest.mark.parametrize("name", QUICK)
def test_steps(name):
    run(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["llama2-7b_full_bf16_foreach", "phi3-mini_lora_fused", "llama2-7b_qlora_all_ckpt_autocast"]
)
def test_longer_steps(name):
    run(name)
