"""A plan is the estimate for every setting inside its range."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralens.core.answer.estimate import estimate
from loralens.core.answer.plan import compile_plan, plan_for
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe
from loralens.core.tape.ledger import CATEGORIES
from loralens.core.tape.size import MONOMIALS

METHODS = ("full", "lora", "qlora", "dora")


def evaluated(moment, batch, sequence, rank):
    values = [batch**b * sequence**s * rank**r for b, s, r in MONOMIALS]
    return [sum(c * v for c, v in zip(row, values, strict=True)) for row in moment["bytes"]]


@pytest.mark.parametrize("method", METHODS)
@given(
    batch=st.integers(1, 64),
    sequence=st.integers(1, 16_384),
    rank=st.integers(1, 512),
    checkpointing=st.booleans(),
)
def test_json_plan_gives_the_estimate(method, batch, sequence, rank, checkpointing):
    words = {"micro_batch_size": batch, "sequence_length": sequence, "gradient_checkpointing": checkpointing}
    recipe = Recipe.from_mapping({**words, "lora": {"rank": rank}})
    plan = plan_for(resolve("qwen2.5-0.5b"), method, recipe).to_dict()
    found = estimate("qwen2.5-0.5b", method, rank=rank, **words)
    totals = [(sum(evaluated(moment, batch, sequence, rank)), moment["phase"]) for moment in plan["moments"]]
    assert max(size for size, _ in totals) == found.allocated_bytes
    for phase, peak in found.phases.items():
        assert max(size for size, own in totals if own == phase) == peak
    assert sum(found.breakdown.values()) == found.allocated_bytes
    assert all(size >= 0 for size in found.breakdown.values())
    assert sum(term["bytes"] for term in found.to_dict()["terms"]) == found.allocated_bytes


@pytest.mark.parametrize("method", METHODS)
def test_cached_plan_equals_a_fresh_one_at_another_setting(method):
    model = resolve("llama-3.2-1b")
    plan_for(model, method, Recipe.from_mapping({"micro_batch_size": 2, "lora": {"rank": 4}}))
    other = Recipe.from_mapping({"micro_batch_size": 5, "sequence_length": 777, "lora": {"rank": 31}})
    assert (
        plan_for(model, method, other).peaks(5, 777, 31)[2] == compile_plan(model, method, other).peaks(5, 777, 31)[2]
    )


def test_position_biases_are_read_in_rows_of_16_so_a_plan_holds_for_one_remainder():
    model = resolve("t5-base")

    def at(length):
        return plan_for(model, "full", Recipe.from_mapping({"sequence_length": length, "micro_batch_size": 2}))

    assert at(500).to_dict()["remainders"] == {"sequence_length": [16, 4]}
    assert at(516) is at(500)
    assert at(512) is not at(500)
    fresh = compile_plan(model, "full", Recipe.from_mapping({"sequence_length": 516, "micro_batch_size": 2}))
    assert at(516).peaks(2, 516, 8) == fresh.peaks(2, 516, 8)


@given(st.data())
def test_more_of_anything_never_needs_less(data):
    method = data.draw(st.sampled_from(METHODS))
    base = {
        "batch": data.draw(st.integers(1, 8)),
        "sequence": data.draw(st.integers(1, 4096)),
        "rank": data.draw(st.integers(1, 64)),
    }
    grown = dict(base)
    key = data.draw(st.sampled_from(sorted(base)))
    grown[key] += data.draw(st.integers(1, 50))

    def peak(setting):
        found = estimate(
            "smollm2-135m",
            method,
            micro_batch_size=setting["batch"],
            sequence_length=setting["sequence"],
            rank=setting["rank"],
        )
        return found.allocated_bytes

    assert peak(grown) >= peak(base)


def test_a_plan_is_evaluated_over_arrays():
    plan = plan_for(resolve("7B"), "lora", Recipe.from_mapping({"micro_batch_size": 2})).to_dict()
    sequence = np.arange(128, 4096, 128, dtype=np.int64)
    values = [2**b * sequence**s * 8**r for b, s, r in MONOMIALS]
    totals = [
        sum(np.array(row) @ np.stack([np.broadcast_to(v, sequence.shape) for v in values]) for row in m["bytes"])
        for m in plan["moments"]
    ]
    peaks = np.max(totals, axis=0)
    one = estimate("7B", "lora", micro_batch_size=2, sequence_length=int(sequence[7]))
    assert peaks[7] == one.allocated_bytes


def test_timeline_meets_the_phases():
    found = estimate("7B", "full")
    points = found.plan.points
    assert [point.phase for point in points] == sorted(
        (p.phase for p in points), key=["forward", "backward", "optimizer"].index
    )
    assert {point.phase for point in points} == {"forward", "backward", "optimizer"}
    for point in points:
        assert point.last.total.at(*found.point) <= found.phases[point.phase]
        assert len(point.first.by_category()) == len(CATEGORIES)


def test_layers_that_are_not_simulated_are_counted():
    """Every layer of a kind costs the same: peaks of 8, 12 and 16 layers lie on a line, and so does the timeline."""
    shape = {
        "model_type": "llama", "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 1000,
    }  # fmt: skip
    for words in ({}, {"gradient_checkpointing": True}, {"autocast": None}, {"optimizer_in_backward": True}):
        for method in METHODS:
            peaks = [estimate({**shape, "num_hidden_layers": n}, method, **words).phases for n in (8, 12, 16)]
            for phase in ("forward", "optimizer"):
                assert peaks[1][phase] - peaks[0][phase] == peaks[2][phase] - peaks[1][phase], (words, method, phase)
