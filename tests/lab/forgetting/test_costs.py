"""Measured bytes against what the tensors must take; the calculator beside them."""

from __future__ import annotations

import pytest
import torch
from lab.forgetting.small import SMALL

from loralens.lab.forgetting.costs import measure_cost, peak_bytes, tensor_bytes
from loralens.lab.forgetting.source import ExperimentSource


@pytest.mark.parametrize("index", range(len(SMALL.arms)), ids=[arm.id for arm in SMALL.arms])
def test_gradients_and_optimizer_state_are_what_the_trainable_weights_need(
    source: ExperimentSource, index: int
) -> None:
    arm = SMALL.arms[index]
    cost = measure_cost(source, arm, SMALL)
    trainable, measured = cost["trainable_parameters"], cost["measured"]
    tensors = sum(p.requires_grad for p in source.adapted(arm, 0).parameters())
    assert measured["gradients_bytes"] == 4 * trainable
    assert measured["optimizer_state_bytes"] == 8 * trainable + 4 * tensors  # two moments, and a step count each
    held = measured["weights_bytes"] + measured["adapter_bytes"] + measured["optimizer_state_bytes"]
    assert measured["peak_bytes"] > held + measured["gradients_bytes"]
    for time in (measured["step_seconds"], measured["step_processor_seconds"]):
        assert 0 < time["low"] <= time["median"] <= time["high"]
    if cost["predicted"] is not None:
        assert cost["predicted"]["trainable_parameters"] == trainable
        assert cost["predicted"]["optimizer_state_bytes"] == measured["optimizer_state_bytes"]
        assert cost["predicted"]["peak_bytes"] == pytest.approx(measured["peak_bytes"], rel=0.02)


def test_shared_storages_are_counted_once() -> None:
    x = torch.zeros(10, 10)
    assert tensor_bytes([x, x[2:], x.T, torch.zeros(3)]) == 400 + 12


def test_peak_sees_memory_that_is_given_back(source: ExperimentSource, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = source.trainer(SMALL.arms[0], learning_rate=1e-3, seed=0, plan=SMALL)
    trainer.advance()
    plain = peak_bytes(trainer)
    step = trainer.advance

    def wasteful():  # type: ignore[no-untyped-def]
        waste = torch.zeros(50_000_000, dtype=torch.uint8)
        del waste
        return step()

    monkeypatch.setattr(trainer, "advance", wasteful)
    assert plain < 5_000_000
    assert peak_bytes(trainer) >= 50_000_000
