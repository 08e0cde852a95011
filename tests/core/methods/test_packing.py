"""In which dtype a product with a 4-bit weight runs: bitsandbytes itself says, with autocast and without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from loralens.core.answer.counted import counted_for
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe


@pytest.fixture(scope="module")
def layer() -> Any:
    """A packed layer whose compute dtype is float32, as TRL's default makes it."""
    torch = pytest.importorskip("torch")
    bnb = pytest.importorskip("bitsandbytes")
    layer = bnb.nn.Linear4bit(128, 64, bias=False, compute_dtype=torch.float32, quant_type="nf4")
    weight = torch.randn(64, 128)
    layer.weight = bnb.nn.Params4bit(
        weight, requires_grad=False, quant_type="nf4", compress_statistics=False
    )._quantize("cpu")
    return layer


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The dtypes in which backward multiplies."""
    torch = pytest.importorskip("torch")
    dtypes: list[str] = []
    product = torch.matmul

    def noted(a: Any, b: Any) -> Any:
        dtypes.append(str(a.dtype))
        return product(a, b)

    monkeypatch.setattr(torch, "matmul", noted)
    yield dtypes


@pytest.mark.parametrize(
    ("autocast", "dtype", "rate"), [("bfloat16", "torch.bfloat16", "half"), (None, "torch.float32", "float32")]
)
def test_autocast_decides_and_not_the_compute_dtype(
    layer: Any, seen: list[str], autocast: str | None, dtype: str, rate: str
) -> None:
    import bitsandbytes as bnb
    import torch

    x = torch.randn(32, 128, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast is not None):
        product = bnb.matmul_4bit(x, layer.weight, quant_state=layer.weight.quant_state)
        result = layer(x)
    result.sum().backward()
    assert (str(product.dtype), seen) == (dtype, [dtype])
    words = {"autocast": autocast, "weights_dtype": "float32", "quantization": {"compute_dtype": "float32"}}
    work = counted_for(resolve("0.5B"), "qlora", Recipe.from_mapping(words)).work
    assert {row[2] for row in work.rows() if row[1] == "products" and row[0] == "recomputation"} == {rate}
