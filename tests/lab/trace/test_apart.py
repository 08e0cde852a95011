"""Where a card is seen the trace runs in a process that sees none: the same bytes, the same errors."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

from loralens.core.errors import InvalidInput, JobFailed, UnsupportedArchitecture
from loralens.lab.trace import apart, case, cuda_on_cpu

CONFIG = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
RECIPE = {"sequence_length": 64, "micro_batch_size": 2, "gradient_checkpointing": True}


@pytest.fixture
def with_a_card(monkeypatch):
    monkeypatch.setattr(cuda_on_cpu, "card_is_visible", lambda: True)


def test_the_same_trace_to_the_last_storage():
    here = case.trace(CONFIG, "qlora", RECIPE)
    elsewhere = case.summarize(*apart.record(CONFIG, "qlora", RECIPE))
    assert elsewhere.to_dict() == here.to_dict()
    for phase in here.phase_peaks:
        assert elsewhere.living(phase) == here.living(phase)


def test_refusals_come_back_as_they_were(with_a_card):
    with pytest.raises(UnsupportedArchitecture, match="no_such_family") as caught:
        case.trace({**CONFIG, "model_type": "no_such_family"}, "lora", RECIPE)
    assert caught.value.field == "config.model_type" and caught.value.hint
    with pytest.raises(InvalidInput, match="compile"):
        case.trace(CONFIG, "lora", {**RECIPE, "compile": True})


@pytest.fixture(autouse=True, scope="module")
def _ended():
    yield
    apart.close()


def test_it_is_kept_and_when_it_has_died_another_is_started(with_a_card):
    case.trace(CONFIG, "lora", RECIPE)
    (child,) = apart._children
    case.trace(CONFIG, "lora", RECIPE)
    assert apart._children == [child]
    child.kill()
    assert case.trace(CONFIG, "lora", RECIPE).total > 0
    assert apart._children != [child]


def test_one_that_ends_without_an_answer_is_a_failed_job(monkeypatch):
    apart.close()
    monkeypatch.setattr(apart.sys, "executable", "/bin/false")
    with pytest.raises(JobFailed, match="ended with 1"):
        apart.record(CONFIG, "lora", {})
