"""The time of a step: a formula whose parts add up, and that says nothing where it knows nothing."""

import numpy as np
import pytest

from loralens.core import catalogue
from loralens.core.answer.counted import counted_for
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe
from loralens.core.tape.size import MONOMIALS
from loralens.core.time.rates import CLASS, FITTED, known, share_of
from loralens.core.time.step_time import PARTS, larger

A100 = catalogue.gpu("a100-sxm4-80")


def planned(method="lora", gpu=A100, batch=4, length=2048, model="qwen2.5-0.5b", **words):
    recipe = Recipe.from_mapping({"micro_batch_size": batch, "sequence_length": length, **words})
    return counted_for(resolve(model), method, recipe).time_on(gpu, recipe)


def seconds(method="lora", batch=4, length=2048, host=1.0, **more):
    return planned(method, batch=batch, length=length, **more).at(batch, length, 8, host)


def test_parts_add_up_and_are_named():
    step = seconds(gradient_checkpointing=True, gradient_accumulation_steps=3)
    assert step.seconds == pytest.approx(sum(step.parts.values()))
    assert set(step.parts) <= set(PARTS)
    assert min(step.parts.values()) >= 0


def test_one_plan_serves_every_batch_and_length():
    """A formula made at one setting says what one made at another says."""
    assert planned().at(8, 4096, 8).seconds == pytest.approx(seconds(batch=8, length=4096).seconds)


def test_a_plan_takes_arrays():
    plan, batches, lengths = planned(), np.array([1.0, 4.0, 32.0]), np.array([64.0, 2048.0, 512.0])
    together = plan.at(batches, lengths, 8).seconds
    assert together == pytest.approx([plan.at(b, s, 8).seconds for b, s in zip(batches, lengths, strict=True)])


def test_the_page_evaluates_the_same_formula():
    plan = planned(optimizer="adamw_fused")
    formula = plan.to_dict()
    values = [4**b * 2048**s * 8**r for b, s, r in MONOMIALS]
    assert formula["monomials"] == [list(exponents) for exponents in MONOMIALS]
    busy = sum(c * v for part in formula["card_seconds"].values() for c, v in zip(part, values, strict=True))
    step = plan.at(4, 2048, 8)
    assert larger(busy, formula["launch_seconds"]) == pytest.approx(
        step.seconds - step.parts["optimizer"] - step.parts["fixed"]
    )


@pytest.mark.parametrize(
    ("slower", "quicker"),
    [
        ({"method": "full"}, {"method": "lora"}),
        ({"gradient_checkpointing": True}, {"gradient_checkpointing": False}),
        ({"method": "qlora"}, {"method": "lora"}),
        ({"attention": "eager"}, {"attention": "flash"}),
        ({"fused_kernels": False}, {"fused_kernels": True}),
        ({"optimizer": "adamw_foreach", "method": "full"}, {"optimizer": "adamw_fused", "method": "full"}),
        ({"gpu": catalogue.gpu("t4"), "autocast": "float16"}, {"gpu": A100, "autocast": "float16"}),
    ],
)
def test_order(slower, quicker):
    assert seconds(**slower).seconds > seconds(**quicker).seconds


def test_a_short_step_waits_for_the_processor():
    assert seconds(batch=1, length=64).parts["waiting"] > 0.5 * seconds(batch=1, length=64).seconds
    assert seconds(batch=1, length=64, host=2.0).seconds > 1.8 * seconds(batch=1, length=64).seconds
    long = seconds(batch=16, length=4096)
    assert long.parts["waiting"] < 0.01 * long.seconds


def test_several_cards_talk():
    two = {"gpus": 2, "strategy": "fsdp"}
    nvlink = seconds(parallelism=two)
    pcie = seconds(parallelism=two, gpu=catalogue.gpu("rtx-3090"))
    assert nvlink.parts["communication"] < 0.3 * nvlink.seconds
    assert pcie.parts["communication"] > nvlink.parts["communication"]


def test_what_is_not_known_stays_unknown():
    assert planned(gpu=catalogue.gpu("custom:24GiB")) is None
    assert planned(gpu=catalogue.gpu("t4"), autocast="bfloat16") is None  # no bfloat16 rate


def test_a_rate_alone_is_enough():
    assert planned(gpu=catalogue.gpu("custom:24GiB,165TFLOP/s")).at(4, 2048, 8).seconds > 0


def test_a_share_says_where_it_comes_from():
    assert share_of(A100).basis == FITTED
    assert share_of(A100, fitted=False).basis == CLASS
    assert share_of(catalogue.gpu("b200-sxm")).basis == CLASS
    assert set(known().bands) == {"fitted", "class", "other", "cut", "unmeasured"}
