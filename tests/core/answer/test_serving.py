"""Serving memory against numbers that follow from the published shapes by hand, and against real caches."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loralens.core.answer.kv_cache import kv_cache_bytes
from loralens.core.answer.serving import serving_answer
from loralens.core.errors import InvalidInput, UnknownGpu, UnknownModel


def test_llama_2_7b_with_six_adapters_by_hand() -> None:
    answer = serving_answer({"model": "7B", "adapters": [{"rank": 8, "count": 6}], "sequence_length": 4096})
    assert answer["base_bytes"] == 6_738_415_616 * 2
    # rank 8 on q_proj and v_proj of 32 layers, bf16
    assert answer["adapters"][0]["parameters_each"] == 4_194_304
    assert answer["adapters_bytes"] == 6 * 4_194_304 * 2
    assert answer["kv_bytes_per_token"] == 2 * 32 * 4096 * 2
    assert answer["kv_cache_bytes"] == 2**31
    assert answer["logits_bytes"] == 32_000 * 4
    assert answer["total_bytes"] == sum(term["bytes"] for term in answer["terms"])
    assert answer["full_models_bytes"] == 6 * answer["base_bytes"] + 2**31 + 128_000


def test_grouped_heads_and_sliding_windows_shrink_the_cache() -> None:
    def cache(model: str, length: int) -> int:
        return int(serving_answer({"model": model, "sequence_length": length})["kv_cache_bytes"])

    assert cache("llama-3-8b", 8192) == 2 * 32 * 8 * 128 * 8192 * 2  # 8 key/value heads, not 32
    assert cache("mistral-7b-v0.1", 32_768) == cache("mistral-7b-v0.1", 4096)  # window of 4096 in every layer


def test_mixed_ranks_and_padding() -> None:
    mix = [{"rank": 8, "count": 4}, {"rank": 64, "count": 2}]
    true = serving_answer({"model": "7B", "adapters": mix})
    padded = serving_answer({"model": "7B", "adapters": mix, "padded": True})
    unit = 4_194_304 // 8 * 2  # bytes per rank
    assert true["adapters_bytes"] == unit * (4 * 8 + 2 * 64)
    assert padded["adapters_bytes"] == unit * 6 * 64 == true["padded_adapters_bytes"]


def test_how_many_fit_is_tight_on_every_gpu() -> None:
    answer = serving_answer({"model": "7B", "adapters": [{"rank": 16, "count": 1}]})
    fitting = [gpu for gpu in answer["gpus"] if gpu["adapters_that_fit"][0]["count"] > 0]
    assert fitting
    for gpu in fitting:
        count = gpu["adapters_that_fit"][0]["count"]
        for number, expected in ((count, True), (count + 1, False)):
            again = serving_answer({"model": "7B", "adapters": [{"rank": 16, "count": number}], "gpu": gpu["gpu"]})
            assert again["gpus"][0]["fits"] is expected
    small = next(gpu for gpu in answer["gpus"] if gpu["gpu"] == "rtx-3060-12")
    assert small["fits"] is False and small["adapters_that_fit"][0]["count"] == 0 and small["headroom_bytes"] < 0


def test_a_quantized_base_is_about_a_quarter() -> None:
    plain, packed = (serving_answer({"model": "7B", "quantization": q})["base_bytes"] for q in (None, "nf4"))
    assert 0.26 < packed / plain < 0.31


@settings(deadline=None, max_examples=20)
@given(batch=st.integers(1, 64), length=st.integers(1, 65_536), rank=st.integers(1, 512), count=st.integers(1, 500))
def test_more_is_never_less(batch: int, length: int, rank: int, count: int) -> None:
    def total(**changes: Any) -> int:
        body = {"batch": batch, "sequence_length": length, "rank": rank, "count": count} | changes
        adapters = [{"rank": body.pop("rank"), "count": body.pop("count")}]
        return int(serving_answer({"model": "llama-3.2-1b", "adapters": adapters, "gpu": "l4", **body})["total_bytes"])

    now = total()
    assert all(
        total(**{name: value + 1}) > now
        for name, value in (("batch", batch), ("sequence_length", length), ("count", count))
    )
    assert total(rank=rank + 1) > now


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        {},
        {"model": "7B", "nonsense": 1},
        {"model": "7B", "adapters": []},
        {"model": "7B", "adapters": [{"rank": 0}]},
        {"model": "7B", "adapters": [{"rank": True}]},
        {"model": "7B", "adapters": [{"rank": 8, "count": 10**9}]},
        {"model": "7B", "adapters": [{"r": 8}]},
        {"model": "7B", "batch": 0},
        {"model": "7B", "sequence_length": 1.5},
        {"model": "7B", "kv_dtype": "int3"},
        {"model": "7B", "adapter_dtype": None},
        {"model": "7B", "padded": "yes"},
        {"model": "7B", "quantization": "magic"},
    ],
)
def test_bad_requests_are_refused(wrong: Any) -> None:
    with pytest.raises(InvalidInput):
        serving_answer(wrong)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UnknownModel):
        serving_answer({"model": "no such model"})
    with pytest.raises(UnknownGpu):
        serving_answer({"model": "7B", "gpu": "no such card"})


def test_cache_size_equals_a_real_cache() -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        cache = model(torch.zeros(5, 7, dtype=torch.int64), use_cache=True).past_key_values
    held = sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))
    assert held == kv_cache_bytes(3, 2, 8, batch=5, sequence_length=7, item_bytes=4)
