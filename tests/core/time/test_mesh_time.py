"""Time on every mesh: what must hold whatever the rates are."""

import pytest

from loralens.core import catalogue
from loralens.core.answer.counted import counted_for
from loralens.core.answer.pace import pace_on
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe
from loralens.core.tape.cost import ATTENTION, CAUSES, NARROW, PRODUCTS
from loralens.core.time.rates import known
from loralens.core.time.step_time import BUBBLE, COMMUNICATION, RECOMPUTATION, WAITING

H100 = catalogue.gpu("h100-sxm")
SMALL = {
    "model_type": "llama", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 8,
    "num_attention_heads": 16, "num_key_value_heads": 8, "vocab_size": 32000, "tie_word_embeddings": False,
}  # fmt: skip
EXPERTS = SMALL | {
    "model_type": "qwen3_moe", "moe_intermediate_size": 512, "num_experts": 16, "num_experts_per_tok": 2, "head_dim": 64
}  # fmt: skip
MESHES = (
    {"gpus": 8, "strategy": "ddp"},
    {"gpus": 8, "strategy": "zero1"},
    {"gpus": 8, "strategy": "zero3"},
    {"gpus": 16, "strategy": "fsdp2", "dp_replicate": 2},
    {"tp": 4},
    {"tp": 4, "sequence_parallel": True, "loss_parallel": True},
    {"gpus": 8, "strategy": "fsdp2", "tp": 2, "sequence_parallel": True},
    {"gpus": 4, "strategy": "fsdp2", "cp": 4},
    {"gpus": 4, "strategy": "fsdp2", "cp": 4, "context": "ulysses"},
    {"pp": 2, "schedule": "gpipe"},
    {"pp": 4, "schedule": "1f1b"},
    {"pp": 4, "schedule": "interleaved", "virtual_stages": 2},
    {"pp": 4, "schedule": "sequential"},
    {"gpus": 16, "strategy": "fsdp2", "pp": 2, "tp": 4},
)


def counted(p, config=SMALL, length=2048, batch=2, micro_batches=4, **words):
    recipe = Recipe.from_mapping(
        {"micro_batch_size": batch, "sequence_length": length, "gradient_accumulation_steps": micro_batches,
         "parallelism": p, **words}
    )  # fmt: skip
    return counted_for(resolve(config=config), "full", recipe), recipe


def step(p, *, batch=2, length=2048, **more):
    found, recipe = counted(p, length=length, batch=batch, **more)
    return found.time_on(H100, recipe).at(batch, length, 8)


@pytest.mark.parametrize("p", MESHES, ids=str)
def test_time_is_never_less_than_computing_and_its_parts_add_up(p):
    found = step(p)
    assert found.seconds == pytest.approx(sum(found.parts.values()))
    assert min(found.parts.values()) >= 0
    assert found.seconds >= sum(found.parts.get(cause, 0.0) for cause in (*CAUSES, RECOMPUTATION))


def test_experts_that_are_divided_are_waited_for():
    divided = step({"gpus": 8, "strategy": "fsdp2", "ep": 8}, config=EXPERTS)
    assert divided.parts[COMMUNICATION] > step({"gpus": 8, "strategy": "fsdp2"}, config=EXPERTS).parts[COMMUNICATION]


@pytest.mark.parametrize("p", [{"gpus": 1}, {"tp": 1}, {"cp": 1}, {"pp": 1}, {"gpus": 1, "strategy": "ddp"}], ids=str)
def test_a_mesh_of_one_is_no_mesh(p):
    assert step(p) == step({})


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
def test_the_bubble_is_as_large_as_stages_and_micro_batches_make_it(schedule):
    """Of p equal stages (p - 1) / m (Narayanan et al. 2021, arXiv:2104.04473, section 2.2); of unequal ones less."""
    shares = []
    for micro_batches in (1, 2, 4, 8, 64):
        found = step({"pp": 4, "schedule": schedule}, micro_batches=micro_batches)
        shares.append(found.parts[BUBBLE] / found.seconds)
    assert shares == sorted(shares, reverse=True)
    assert 0.25 < shares[0] < 0.75 and 0 < shares[-1] < 3 / 64
    assert step({"tp": 4}).parts[BUBBLE] == 0


def test_interleaving_shrinks_the_bubble_by_the_stages_on_a_gpu():
    plain, cut = step({"pp": 4}), step({"pp": 4, "schedule": "interleaved", "virtual_stages": 2})
    assert cut.parts[BUBBLE] == pytest.approx(plain.parts[BUBBLE] / 2, rel=0.1)
    assert cut.parts[COMMUNICATION] > plain.parts[COMMUNICATION]  # twice the messages


def test_one_after_another_all_stages_but_one_wait():
    plain, found = step({"pp": 4}), step({"pp": 4, "schedule": "sequential"})
    assert found.parts[BUBBLE] == pytest.approx(4 * plain.parts[BUBBLE])  # in each of four micro batches, not once


def flops(found, length, *causes):
    return sum(
        work.flops.at(2, length, 8)
        for phase, cause, _, work in found.work.rows()
        if cause in causes and phase == "forward"
    )


@pytest.mark.parametrize("context", ["ring", "ulysses"])
def test_all_parts_of_a_sequence_attend_as_much_as_the_whole(context):
    whole, _ = counted({}, length=4096)
    part, _ = counted({"gpus": 4, "strategy": "fsdp2", "cp": 4, "context": context}, length=4096)
    for causes in ((ATTENTION,), (PRODUCTS,)):
        assert 4 * flops(part, 4096, *causes) == flops(whole, 4096, *causes)


def test_all_parts_of_the_width_multiply_as_much_as_the_whole():
    whole, _ = counted({})
    part, _ = counted({"tp": 4, "loss_parallel": True})
    causes = (ATTENTION, PRODUCTS, NARROW)
    assert 4 * flops(part, 2048, *causes) == flops(whole, 2048, *causes)


def test_a_ring_hides_behind_long_attention_and_an_exchange_does_not():
    ring, exchanged = (
        step({"gpus": 4, "strategy": "fsdp2", "cp": 4, "context": way}, length=32_768, batch=1)
        for way in ("ring", "ulysses")
    )
    assert ring.parts[COMMUNICATION] < exchanged.parts[COMMUNICATION]


@pytest.mark.parametrize(
    "p", [{"gpus": 16, "strategy": "fsdp2"}, {"gpus": 16, "strategy": "fsdp2", "tp": 4}, {"pp": 4}], ids=str
)
def test_smaller_machines_are_never_quicker(p):
    seconds = [step(p | {"machine_gpus": size}).seconds for size in (16, 8, 4, 1)]
    assert seconds == sorted(seconds)


def test_what_has_no_published_run_has_a_wider_band():
    def width(p):
        recipe = counted(p, batch=8, length=8192)[1]
        found = pace_on(resolve(config=SMALL), "full", recipe, H100)
        return found.high_seconds / found.low_seconds, found.notes

    cut, guessed = width({"pp": 4}), width({"pp": 4, "schedule": "gpipe"})
    assert cut[0] <= guessed[0]
    assert guessed[0] >= known().bands["unmeasured"].high / known().bands["unmeasured"].low
    assert any("with schedule=gpipe could be computed" in note for note in guessed[1])
    assert not any("could be computed" in note for note in cut[1])


def test_what_goes_between_gpus_says_where_and_how_it_is_waited_for():
    found, recipe = counted(
        {"gpus": 32, "strategy": "fsdp2", "tp": 4, "sequence_parallel": True, "pp": 2, "machine_gpus": 8}
    )
    times = found.time_on(H100, recipe).set(2, 2048, 8)
    rows = {row.over: (row.way, row.leaves, seconds) for row, seconds in times.transfers()}
    assert {over: row[:2] for over, row in rows.items()} == {
        "tp": ("waited", False), "dp_shard": ("waited", True), "pp": ("waited", True)
    }  # fmt: skip
    waited = sum(row[2] for row in rows.values())
    assert 0 < waited <= times.step().parts[COMMUNICATION]
    hidden = counted({"gpus": 8, "strategy": "ddp"})[0].time_on(H100, recipe).set(2, 2048, 8)
    assert [(row.over, row.way) for row, _ in hidden.transfers()] == [("dp_replicate", "hidden")]
    assert counted({})[0].time_on(H100, recipe).set(2, 2048, 8).transfers() == []


@pytest.mark.parametrize("p", MESHES, ids=str)
def test_what_is_waited_for_of_the_transfers_is_part_of_what_goes_between_gpus(p):
    found, recipe = counted(p)
    times = found.time_on(H100, recipe).set(2, 2048, 8)
    between, waited = times.step().parts[COMMUNICATION], times.waited()
    assert sum(seconds for row, seconds in times.transfers() if row.way == "waited") <= waited * (1 + 1e-9)
    assert waited <= sum(seconds for _, seconds in times.transfers()) * (1 + 1e-9)
    if p.get("strategy") in ("fsdp2", "zero3"):
        assert between - waited >= known().constants.sharded_step_seconds * (1 - 1e-9)
    else:
        assert waited == pytest.approx(between)


def test_transfers_that_hide_are_not_waited_for_and_those_that_take_longer_than_computing_are():
    """Eight cards over NVLink compute longer than they send; over PCIe they send longer, and wait for the rest."""
    found, recipe = counted({"gpus": 8, "strategy": "fsdp2"}, micro_batches=1)
    fast, slow = (found.time_on(catalogue.gpu(name), recipe).set(2, 2048, 8) for name in ("h100-sxm", "rtx-4090"))
    assert fast.waited() == 0 < fast.step().parts[COMMUNICATION]
    sent = sum(seconds for _, seconds in slow.transfers())
    assert 0 < slow.waited() < sent


def test_megatrons_own_layers_are_cut_without_dtensor():
    """Their matrices are smaller ones of ordinary tensors, so nothing is dispatched (Megatron-LM core/tensor_parallel/layers.py)."""

    def of(**more):
        recipe = Recipe.from_mapping({"parallelism": {"tp": 2}, "gradient_accumulation_steps": 4, **more})
        return pace_on(resolve("llama-3.1-8b"), "full", recipe, H100)

    own, cut = of(stack={"megatron": "0.15"}), of()
    assert own.step.parts[WAITING] < 0.1 * cut.step.parts[WAITING]
    assert any("DTensor" in note for note in cut.notes) and not any("DTensor" in note for note in own.notes)
    assert any("with tp=2 could be computed" in note for note in own.notes)


def test_zero_bubble_schedules_have_no_published_run():
    recipe = Recipe.from_mapping({"parallelism": {"pp": 2, "schedule": "zero_bubble"}, "gradient_checkpointing": False})
    notes = pace_on(resolve("llama-3.1-8b"), "full", recipe, H100).notes
    assert any("with schedule=zero_bubble could be computed" in note for note in notes)
