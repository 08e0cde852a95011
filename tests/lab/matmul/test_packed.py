import pytest
import torch

from loralens.lab.matmul import packed
from loralens.lab.matmul.packed import PackedWeight


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("hint", [1, 16])
@pytest.mark.parametrize("rows", [1, 5, 33])
def test_a_packed_weight_gives_the_product_of_the_plain_one(dtype, hint, rows):
    if reason := packed.why_not(dtype):
        pytest.skip(reason)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 70, generator=generator).to(dtype)
    weight = torch.randn(50, 70, generator=generator).to(dtype)
    bias, other = torch.randn(50, generator=generator).to(dtype), torch.randn(rows, 50, generator=generator).to(dtype)
    exact = x.double() @ weight.double().t()
    limit = 1e-6 if dtype is torch.float32 else 4e-3
    with torch.inference_mode():
        weight_of = PackedWeight(weight, hint)
        for actual, expected in (
            (weight_of(x), exact),
            (weight_of(x, bias), exact + bias.double()),
            (weight_of(x, add=other), exact + other.double()),
            (weight_of(x, bias, add=other), exact + bias.double() + other.double()),
        ):
            assert (actual.double() - expected).norm() / expected.norm() < limit


def test_where_packing_is_impossible_the_reason_is_said():
    assert "GPU" in packed.why_not(torch.float32, "cuda")
    assert packed.why_not(torch.float64) is not None


def test_a_wrong_probe_turns_packing_off(monkeypatch):
    monkeypatch.setattr(PackedWeight, "__call__", lambda self, x, bias=None, add=None: torch.zeros(3, 48))
    packed.why_not.cache_clear()
    try:
        assert packed.why_not(torch.float32) == "a trial run of the prepacked product gave a wrong result"
    finally:
        packed.why_not.cache_clear()
