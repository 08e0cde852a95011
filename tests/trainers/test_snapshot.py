"""A snapshot built by torch's own description of it (torch/cuda/memory.py): the step's tensors come back by name."""

from __future__ import annotations

import io
import pickle

import pytest

from loralens.core.answer.named_requests import named_requests
from loralens.core.answer.resting_blocks import resting_blocks
from loralens.core.errors import InvalidInput
from loralens.planner.question import read_question
from loralens.trainers.snapshot import explain_snapshot

BODY = {"model": "qwen2.5-0.5b", "method": "full", "recipe": {"sequence_length": 256, "gradient_checkpointing": True}}
OPTIM = [
    {"filename": "torch/optim/adamw.py", "line": 1, "name": "_init_group"},
    {"filename": "t.py", "line": 2, "name": "main"},
]
LOADED = [{"filename": "transformers/modeling_utils.py", "line": 3, "name": "_load_state_dict"}]
STRANGE = [{"filename": "mine.py", "line": 9, "name": "cache"}]


def snapshot(blocks):
    """Blocks as (requested bytes, frames), one segment each."""
    rows, address = [], 1 << 40
    for size, frames in blocks:
        held = -(-size // 512) * 512
        block = {
            "size": held,
            "requested_size": size,
            "address": address,
            "state": "active_allocated",
            "frames": frames,
        }
        free = {"size": 512, "requested_size": 0, "address": address + held, "state": "inactive", "frames": []}
        rows.append({"address": address, "total_size": held + 512, "stream": 0, "segment_type": "large",
                     "allocated_size": held, "active_size": held, "blocks": [block, free]})  # fmt: skip
        address += held + 512
    traces = [[{"action": "alloc", "addr": 1, "size": 1, "stream": 0, "frames": STRANGE}] * 50]
    return io.BytesIO(pickle.dumps({"segments": rows, "device_traces": traces, "allocator_settings": {}}, 4))


def test_every_block_of_a_step_is_named_and_the_rest_is_said():
    question, _ = read_question(BODY)
    resting = resting_blocks(question.model, question.method, question.estimate().recipe)
    frames = {"weights": LOADED, "optimizer_state": OPTIM}
    blocks = [
        (one.bytes, frames.get(one.category, []))
        for one in resting
        if one.category != "gradients"
        for _ in range(one.count)
    ]
    step = named_requests(question.model, question.method, question.estimate().recipe)
    logits = next(one for one in step if one.category == "logits" and one.phase == "forward")
    answer = explain_snapshot(snapshot([*blocks, (logits.bytes, []), (123_456_789, STRANGE)]), "m.pickle", question)
    terms = {(row["category"], row["by"]): row for row in answer["terms"]}
    estimate = question.estimate()
    assert terms["weights", "size and stack"]["bytes"] == pytest.approx(estimate.breakdown["weights_bytes"], rel=1e-3)
    states = sum(row["bytes"] for row in answer["terms"] if row["category"] == "optimizer_state")
    assert states == pytest.approx(estimate.breakdown["optimizer_state_bytes"], rel=1e-3)
    assert terms["logits", "size"]["name"] == logits.label
    assert [(row["each_bytes"], row["stack"]) for row in answer["unexplained"]] == [(123_457_024, ["mine.py:9 cache"])]
    assert answer["unexplained_bytes"] == 123_457_024
    assert answer["allocated_bytes"] == sum(row["bytes"] for row in answer["terms"]) + answer["unexplained_bytes"]
    assert any("history" in note for note in answer["notes"])


def test_without_a_set_up_stacks_speak():
    answer = explain_snapshot(snapshot([(4096, OPTIM), (8192, LOADED)]), "m.pickle")
    assert {row["category"] for row in answer["unexplained"]} == {"optimizer_state", "weights"}
    assert "set-up" in answer["notes"][0]


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"segments": 3},
        {"segments": [1]},
        {"segments": [{"total_size": "x"}]},
        {"segments": [{"total_size": -1}]},
    ],
)
def test_another_pickle_is_no_snapshot(content):
    with pytest.raises(InvalidInput, match="no snapshot"):
        explain_snapshot(io.BytesIO(pickle.dumps(content, 4)), "m.pickle")
