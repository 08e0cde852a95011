"""The loops that people run, traced: the engine meets each within a two-thousandth of its peak.

`tests/oracles/traced-loops.jsonl`: `loop` is `plain` (the output kept by its name), `trainer` (transformers' Trainer.compute_loss)
or `sft` (SFTTrainer.compute_loss of TRL 1.6, with its metrics); families x methods x checkpointing, none of them in another file.
`trl-1.10`, `trl-1.13`, `trl-1.16`: its head in chunks and its fused head (`tests/trainers/trl_traces.py`);
`litgpt`: its list of logits (`tests/trainers/litgpt_traces.py`).
"""

import json
from pathlib import Path

import peft  # noqa: F401  # it registers bitsandbytes' operators
import pytest

from loralens.core.answer.estimate import estimate_model
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe
from loralens.lab.trace import build, loops, step
from loralens.lab.trace.case import summarize

PATH = Path(__file__).parents[2] / "oracles" / "traced-loops.jsonl"
CASES = [json.loads(line) for line in PATH.read_text("utf-8").splitlines()]
AGAIN = {"qwen3-4b/plain-lora-checkpointing", "gemma-3-1b/trainer-lora"}


def test_there_are_enough():
    assert len(CASES) >= 60
    assert {case["loop"] for case in CASES} == {"plain", "trainer", "sft", "trl-1.10", "trl-1.13", "trl-1.16", "litgpt"}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_engine_agrees(case):
    request, expected = case["request"], case["expected"]
    own = estimate_model(resolve(config=request["config"]), request["method"], Recipe.from_mapping(request["recipe"]))
    assert (own.total_parameters, own.trainable_parameters) == (expected["total"], expected["trainable"])
    assert own.phase == expected["phase"]
    assert own.allocated_bytes == pytest.approx(expected["peak_allocated_bytes"], rel=5e-4)


@pytest.mark.parametrize("case", [case for case in CASES if case["name"] in AGAIN], ids=lambda case: case["name"])
def test_a_loop_is_traced_again(case):
    assert (
        traced(case, loops.PlainLoop(keeps=True) if case["loop"] == "plain" else loops.TrainerLoop())
        == case["expected"]
    )


def test_trls_step_is_traced_again():
    pytest.importorskip("trl")
    case = next(case for case in CASES if case["name"] == "smollm3-3b/sft-lora")
    assert traced(case, loops.Sft()) == case["expected"]


def traced(case, loop):
    request = case["request"]
    recipe = Recipe.from_mapping(request["recipe"])
    found = summarize(*step.run(build.read_config(request["config"]), request["method"], recipe, loop)).to_dict()
    return {name: found[name] for name in case["expected"]}
