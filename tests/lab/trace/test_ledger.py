"""The ledger against torch itself: the same births and releases as a real allocator, the same sums of gradients."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.profiler import profile  # noqa: E402

from loralens.lab.trace import cuda_on_cpu, kernels, ledger, peaks  # noqa: E402
from loralens.lab.trace.case import trace  # noqa: E402

TINY = {
    "model_type": "llama",
    "vocab_size": 101,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "tie_word_embeddings": True,
}


def mlp_step(device: str) -> Any:
    """Forward and backward of a small network; every size is one of a kind."""
    with torch.device(device):
        first = torch.nn.Parameter(torch.empty(72, 40))
        second = torch.nn.Parameter(torch.empty(24, 72))
        x = torch.empty(56, 40)

    def step() -> None:
        hidden = torch.tanh(torch.nn.functional.linear(x, first))
        torch.nn.functional.linear(hidden, second).square().sum().backward()

    return step, (first, second)


def test_births_and_releases_equal_those_of_the_real_allocator():
    step, real = mlp_step("cpu")
    step()  # gradients exist afterwards; a first pass also fills torch's own caches
    for parameter in real:
        parameter.grad = None
    with profile(profile_memory=True) as profiler:
        step()
    happened = [e.nbytes() for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]" and e.nbytes()]
    with (
        cuda_on_cpu.cuda_words(),
        FakeTensorMode(),
        torch.autograd.set_multithreading_enabled(False),
        ledger.TraceLedger() as book,
    ):
        step, fake = mlp_step("cuda")
        book.begin("forward")
        step()
        first = book.marks[0][1]
        seen = [(1 if e > 0 else -1) * book.storages[abs(e) - 1].size_bytes for e in book.events[first:]]
    large = [size for size in happened if abs(size) > 64]
    assert [size for size in seen if abs(size) > 64] == large
    assert len(large) > 8
    assert fake[0].grad is not None


def test_gradients_are_summed_where_the_engine_sums_them_on_real_tensors(monkeypatch):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(**{key: value for key, value in TINY.items() if key != "model_type"}, use_cache=False)
    config._attn_implementation = "eager"
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    tokens = torch.randint(0, 100, (1, 16))
    loss = model(input_ids=tokens, labels=tokens).loss
    with profile(record_shapes=True) as profiler:
        loss.backward()
    real = [
        (event.name.removeprefix("aten::"), tuple(event.input_shapes[0]))
        for event in profiler.events()
        if event.name in ("aten::add", "aten::add_") and "evaluate_function" in getattr(event.cpu_parent, "name", "")
    ]
    traced: list[tuple[str, tuple[int, ...]]] = []
    decide = ledger.sole_owner

    def watch(tensor: Any) -> bool:
        alone = decide(tensor)
        traced.append(("add_" if alone else "add", tuple(tensor.shape)))
        return alone

    monkeypatch.setattr(ledger, "sole_owner", watch)
    trace(TINY, "full", {"sequence_length": 16, "autocast": None, "attention": "eager", "optimizer": "sgd"})
    assert traced == real
    # the tied embedding's two gradients are summed into a third: one of them is a view
    assert real[-1] == ("add", (101, 32)) and ("add_", (1, 16, 32)) in real


def test_a_gather_adds_its_gradient_into_its_zeros():
    with (
        cuda_on_cpu.cuda_words(),
        FakeTensorMode(),
        torch.autograd.set_multithreading_enabled(False),
        ledger.TraceLedger() as book,
    ):
        x = torch.empty(64, 32, device="cuda", requires_grad=True)
        chosen = x.gather(1, torch.zeros(64, 2, dtype=torch.int64, device="cuda"))
        book.begin("backward")
        first = len(book.storages)
        chosen.sum().backward()
    assert [storage.op for storage in book.storages[first:] if storage.size_bytes == 64 * 32 * 4] == [
        "aten.new_zeros.default"
    ]


def test_peaks_of_a_hand_written_log():
    book = ledger.TraceLedger()
    for kind, size in (("weight", 1000), ("activation", 600), ("logits", 300), ("gradient", 100)):
        book.storages.append(ledger.TracedStorage(len(book.storages), size, kind, "", "", "", (), ""))
    book.marks = [("forward", 1), ("backward", 3), ("optimizer", 6)]
    book.events = [1, 2, 3, -3, 4, -2]
    found = peaks.phase_peaks(book)
    assert {phase: moment.live_bytes for phase, moment in found.items()} == {
        "forward": 1900, "backward": 1900, "optimizer": 1100,
    }  # fmt: skip
    assert {phase: m.live_bytes for phase, m in peaks.phase_peaks(book, rounded=True).items()} == {
        "forward": 1024 + 1024 + 512, "backward": 2560, "optimizer": 1024 + 512,
    }  # fmt: skip
    assert peaks.kinds(peaks.live_at(book, 5)) == {"weight": 1000, "activation": 600, "gradient": 100}
    assert peaks.categories(peaks.live_at(book, 6))["gradients"] == 100


def test_silu_backward_is_one_kernel_and_dropout_keeps_one_byte():
    kernels.install()
    with (
        cuda_on_cpu.cuda_words(),
        FakeTensorMode(),
        torch.autograd.set_multithreading_enabled(False),
        ledger.TraceLedger() as book,
    ):
        x = torch.empty(8, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        book.begin("forward")
        y = torch.nn.functional.dropout(torch.nn.functional.silu(x), 0.5)
        book.begin("backward")
        y.backward(torch.empty_like(y))
    masks = [s for s in book.storages if s.dtype == "bool"]
    assert [s.size_bytes for s in masks] == [8 * 64]
    backward = [s.op for s in book.storages if s.phase == "backward"]
    assert backward.count("aten.silu_backward.default") == 1
    assert not any("sigmoid" in op for op in backward)
