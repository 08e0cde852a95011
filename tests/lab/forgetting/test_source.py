from __future__ import annotations

import pytest
from lab.forgetting.small import SMALL

from loralens.lab.forgetting.plan import Arm
from loralens.lab.forgetting.source import ExperimentSource, delta
from loralens.lab.tiny.lora import base_hash
from loralens.lab.tiny.model import LINEAR_NAMES


def own(source: ExperimentSource, arm: Arm) -> tuple[set[str], set[str]]:
    """Names of the parameters that train, and of the base's that were copied."""
    model = source.adapted(arm, 0)
    shared = {id(p) for p in source.base.parameters()}
    trains = {n for n, p in model.named_parameters() if p.requires_grad}
    return trains, {n for n, p in model.named_parameters() if id(p) not in shared}


@pytest.mark.parametrize("arm", SMALL.arms, ids=lambda arm: arm.id)
def test_what_does_not_train_is_shared_with_the_base(source: ExperimentSource, arm: Arm) -> None:
    trains, copied = own(source, arm)
    assert trains == copied
    assert trains


def test_each_arm_trains_what_it_says(source: ExperimentSource) -> None:
    arms = {arm.id: own(source, arm)[0] for arm in SMALL.arms}
    everything = {n for n, _ in source.base.named_parameters()}
    assert arms["full"] == arms["mixed"] == everything
    assert arms["linear"] == {n for n in everything if n.split(".")[-2] in LINEAR_NAMES}
    assert {n.split(".")[-2] for n in arms["lora-r4-qv"]} == {"q_proj", "v_proj"}
    assert all(".lora_" in n for n in arms["lora-r4"])
    rest = {n for n in arms["lora-full-rank"] if ".lora_" not in n}
    assert rest == everything - arms["linear"]


def test_every_arm_sees_the_same_new_text(source: ExperimentSource) -> None:
    full, lora = (source.trainer(arm, learning_rate=0.1, seed=5, plan=SMALL) for arm in (SMALL.arms[0], SMALL.arms[3]))
    assert full.batch().equal(lora.batch())


def test_training_leaves_the_base_alone(source: ExperimentSource) -> None:
    before = base_hash(source.base)
    for arm in SMALL.arms:
        for _ in source.trainer(arm, learning_rate=0.1, seed=0, plan=SMALL).steps(2):
            pass
    assert base_hash(source.base) == before


def test_delta_is_after_minus_before(source: ExperimentSource) -> None:
    trained = {n: p + 1 for n, p in source.base.named_parameters()}
    changes = delta(source.base, trained, source.linear_names)
    assert {path.split(".")[-1] for path in changes} == set(LINEAR_NAMES)
    assert all((change - 1).abs().max() < 1e-5 for change in changes.values())
