"""A watched training: planted long batches are named ahead on a device with an artificial limit, and nothing else is."""

from __future__ import annotations

import contextlib
import random
import warnings
from functools import cache

import pytest
import torch

import loralens
from loralens.core.answer.estimate import estimate
from loralens.core.errors import InvalidInput
from loralens.lab.watch import ProcessMeter, Watch
from loralens.lab.watch.watch import shape_of

MODEL, METHOD = "qwen2.5-0.5b", "lora"
WORDS = {"gradient_checkpointing": True, "attention": "sdpa"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LORALENS_STATE_DIR", str(tmp_path))


@cache
def computed_bytes(batch, length):
    return estimate(MODEL, METHOD, micro_batch_size=batch, sequence_length=length, **WORDS).allocated_bytes


class Device:
    """Takes six percent and 200 MiB more than is computed, and a little at random; holds no more than its limit."""

    exact, name = True, "artificial"

    def __init__(self, limit):
        self.limit, self.now, self.chance = limit, 0, random.Random(3)

    def run(self, batch, length):
        computed = computed_bytes(batch, length)
        self.now = round(1.06 * computed) + (200 << 20) + self.chance.randrange(4 << 20)
        return self.now <= self.limit

    def begin(self):
        pass

    def peak_bytes(self):
        return self.now

    def limit_bytes(self):
        return self.limit


def lengths(count, planted, usual):
    chance = random.Random(1)
    return [planted.get(place, chance.choice(usual)) for place in range(count)]


def test_planted_batches_are_named_a_step_ahead_and_nothing_else_in_ten_thousand_steps():
    usual, planted = (256, 512, 768, 1024), {500: 8192, 4_000: 4096, 4_001: 6144, 9_998: 8192}
    device = Device(round(1.06 * estimate(MODEL, METHOD, sequence_length=2048, **WORDS).allocated_bytes) + (200 << 20))
    watch, named = Watch(MODEL, METHOD, meter=device, **WORDS), {}
    rows = lengths(10_000, planted, usual)
    for place, batch in enumerate(watch.batches([[0] * length] for length in rows)):
        for warned in watch.warnings[len(named) :]:
            named[warned.step] = warned.sequence_length
        fits = device.run(*shape_of(batch))
        assert fits == (place not in planted)
        with contextlib.suppress(MemoryError), watch.step():
            if not fits:
                raise MemoryError
            with watch.phase("backward"):
                pass
    ahead = {place - 1: length for place, length in planted.items()}
    assert named == ahead
    report = watch.report()
    assert report["steps"] == 10_000
    assert len(report["warnings"]) == 4
    assert report["overhead_seconds"] < report["steps"] * 1e-3


def test_without_steps_seen_the_plan_alone_warns():
    watch = Watch(MODEL, METHOD, limit_bytes=1 << 30, **WORDS)
    watch.look({"input_ids": torch.zeros(4, 4096)})
    assert (watch.warnings[0].micro_batch_size, watch.warnings[0].sequence_length) == (4, 4096)
    assert "4 × 4,096 tokens" in str(watch.warnings[0])


def test_phases_stand_beside_what_was_computed():
    device = Device(1 << 40)
    watch = Watch(MODEL, METHOD, meter=device, gpu="a100-80", **WORDS)
    for batch in watch.batches([torch.zeros(1, 512)] * 3):
        with watch.step():
            for name in ("forward", "backward", "optimizer"):
                with watch.phase(name):
                    device.now = estimate(MODEL, METHOD, sequence_length=512, **WORDS).phases[name]
        assert shape_of(batch) == (1, 512)
    report = watch.report()
    assert [row["inside"] for row in report["phases"]] == [True, True, True]
    assert all(row["band_bytes"][0] < row["measured_bytes"] < row["band_bytes"][1] for row in report["phases"])
    assert report["tokens_per_second"] > 0 and report["predicted_tokens_per_second"] > 0


@pytest.mark.parametrize("given", [{"limit_bytes": 0}, {"limit_bytes": "24GB"}, {"rank": 0}, {"gpu": "no-such-card"}])
def test_bad_words_are_refused(given):
    with pytest.raises((InvalidInput, LookupError)):
        Watch(MODEL, METHOD, **given)
    with pytest.raises(InvalidInput, match="unknown phase"), Watch(MODEL, METHOD).phase("sideways"):
        pass


@pytest.mark.parametrize(
    "batch", [{}, {"input_ids": []}, {"input_ids": "text"}, 3, None, torch.zeros(3), {"input_ids": torch.zeros(0, 5)}]
)
def test_a_batch_without_a_shape_is_passed_over(batch):
    assert shape_of(batch) is None
    watch = Watch(MODEL, METHOD, limit_bytes=1)
    watch.look(batch)
    assert watch.warnings == []


def test_it_is_a_callback_of_transformers(tmp_path):
    """A real Trainer on a tiny model: every step is seen, its batches one ahead; memory is the process's here."""
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

    config = LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=128
    )
    rows = [{"input_ids": [1] * length, "labels": [1] * length} for length in (16, 16, 16, 16, 64, 16)]
    small = estimate(config.to_dict(), "full", sequence_length=32).allocated_bytes
    watch = loralens.Watch(config.to_dict(), "full", meter=ProcessMeter(), limit_bytes=small)
    args = TrainingArguments(str(tmp_path), per_device_train_batch_size=1, gradient_accumulation_steps=2, max_steps=3,
                             report_to="none", use_cpu=True, save_strategy="no", train_sampling_strategy="sequential")  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Trainer(LlamaForCausalLM(config), args, train_dataset=rows, callbacks=[watch]).train()
    report = watch.report()
    assert (report["steps"], report["meter"]) == (3, "process")
    assert [warned.sequence_length for warned in watch.warnings] == [64]
    assert watch.warnings[0].step <= 2
    assert {row["phase"] for row in report["phases"] if row["measured_bytes"] is not None} == {"backward", "optimizer"}
    assert all(row["inside"] is None for row in report["phases"])
