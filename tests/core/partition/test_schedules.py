"""What waits under a pipeline's schedule: torch's own orders, action by action, and what is read off them."""

from __future__ import annotations

import pytest

from loralens.core.answer.estimate import estimate
from loralens.core.errors import InvalidInput
from loralens.core.partition.schedules import SCHEDULES, Waiting
from loralens.core.question.parallelism import Parallelism

MODEL = {
    "model_type": "llama", "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 8,
    "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 4096, "tie_word_embeddings": False,
}  # fmt: skip
WORDS = {
    "sequence_length": 256, "weights_dtype": "bfloat16", "autocast": None, "gradient_checkpointing": False,
    "gradient_accumulation_steps": 8,
}  # fmt: skip
LETTERS = {"FORWARD": "F", "BACKWARD_INPUT": "I", "BACKWARD_WEIGHT": "W"}


def _torchs_order(name, ranks, pieces, micro_batches, rank):
    schedules = pytest.importorskip("torch.distributed.pipelining.schedules")
    kind = schedules.ScheduleInterleavedZeroBubble if name == "zero_bubble" else schedules.ScheduleZBVZeroBubble
    made = kind.__new__(kind)
    made.pp_group_size, made._n_microbatches, made.n_local_stages, made.rank = ranks, micro_batches, pieces, rank
    made.num_stages, made.number_of_rounds = ranks * pieces, max(1, micro_batches // ranks)
    made.microbatches_per_round = micro_batches // made.number_of_rounds
    actions = made._calculate_single_rank_operations(rank)
    return [(LETTERS[each.computation_type.name], each.stage_index) for each in actions if each is not None]


@pytest.mark.parametrize(("name", "pieces"), [("zero_bubble", 1), ("zero_bubble", 3), ("zero_bubble_v", 2)])
@pytest.mark.parametrize(
    ("ranks", "micro_batches"),  # torch refuses micro batches that do not fill its rounds
    [(ranks, some) for ranks in (1, 2, 4) for some in (1, 3, 6, 8) if some % max(1, some // ranks) == 0],
)
def test_a_rank_does_what_torchs_schedule_has_it_do(name, pieces, ranks, micro_batches):
    virtual = pieces if name == "zero_bubble" else 1
    p = Parallelism(gpus=ranks, pp=ranks, schedule=name, virtual_stages=virtual)
    for rank in range(ranks):
        found = list(SCHEDULES[name].order(p, micro_batches, rank))
        if micro_batches <= 4 * ranks:
            assert found == _torchs_order(name, ranks, pieces, micro_batches, rank)


def test_the_first_rank_has_most_passes_and_the_last_most_halves():
    p = Parallelism(gpus=4, pp=4, schedule="zero_bubble", virtual_stages=2)
    found = [SCHEDULES["zero_bubble"].waiting(p, 8, rank) for rank in range(4)]
    assert [(each.whole, each.halves) for (each,) in found] == [(7, 1), (6, 2), (5, 3), (4, 4)]
    assert found[3] == [Waiting(4, 4, last_halves=4, sent_back=12)]


def test_many_micro_batches_are_as_few_rounds():
    p = Parallelism(gpus=4, pp=4, schedule="zero_bubble_v")
    few, many = ([(x.whole, x.halves) for x in SCHEDULES["zero_bubble_v"].waiting(p, m, 2)] for m in (32, 4_000))
    assert few == many


def test_a_v_has_both_ends_on_the_first_rank():
    words = {"pp": 4, "schedule": "zero_bubble_v"}
    first, last = (estimate(MODEL, "full", **WORDS, **words, pipeline_rank=rank) for rank in (0, 3))
    held = {label for _, label in first.plan.points[0].first.entries}
    assert {"model.embed_tokens.weight", "lm_head.weight"} <= held
    assert not {"model.embed_tokens.weight", "lm_head.weight"} & {k for _, k in last.plan.points[0].first.entries}
    received = next(row for row in last.communication if row["kind"] == "receive")
    assert received["calls"] == 2 * 8  # a forward pass down, a gradient back: what it hands itself is not sent


def test_halves_hold_more_than_a_backward_in_one():
    whole, split = (
        estimate(MODEL, "full", **WORDS, pp=4, pipeline_rank=3, schedule=name) for name in ("1f1b", "zero_bubble")
    )
    assert split.allocated_bytes > whole.allocated_bytes
    assert split.phases["optimizer"] < split.allocated_bytes
    assert any("backward is cut in two: 4 passes" in line for line in split.assumptions())


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ({"gradient_checkpointing": True}, "gradient_checkpointing"),
        ({"compile": True}, "parallelism.schedule"),
        ({"gradient_accumulation_steps": 9}, "gradient_accumulation_steps"),
    ],
)
def test_what_torchs_schedule_does_not_run_is_refused_by_name(words, field):
    with pytest.raises(InvalidInput) as caught:
        estimate(MODEL, "full", **WORDS | words, pp=4, schedule="zero_bubble")
    assert caught.value.field == field
    assert caught.value.hint


def test_fewer_micro_batches_than_torchs_1f1b_takes_are_remarked_upon():
    said = "torch's 1F1B takes no fewer"
    few, enough = (
        estimate(MODEL, "full", **WORDS | {"gradient_accumulation_steps": many}, pp=4).assumptions() for many in (2, 4)
    )
    assert any(said in line for line in few)
    assert not any(said in line for line in enough)
