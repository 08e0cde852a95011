"""The bit test for NaN and infinity against torch's own, over arbitrary bits and at every place of a file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.files import read_adapter_bytes
from loralens.lab.adapters.finite import all_finite

from .helpers import files, random_tensors

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@pytest.mark.parametrize("name", DTYPES)
@given(raw=st.binary(min_size=4, max_size=64))
def test_arbitrary_bits_are_judged_as_torch_judges_them(name: str, raw: bytes) -> None:
    size = DTYPES[name].itemsize
    data = np.frombuffer(raw[: len(raw) // size * size], np.uint8).copy()
    assert all_finite(data, name) == bool(torch.from_numpy(data).view(DTYPES[name]).isfinite().all())


@pytest.mark.parametrize("name", DTYPES)
def test_the_edges_of_a_format(name: str) -> None:
    dtype, inf = DTYPES[name], float("inf")
    most = torch.finfo(dtype).max
    for values, finite in (([most, -most, 0.0, -0.0], True), ([0, inf], False), ([0, -inf], False)):
        assert all_finite(torch.tensor(values, dtype=dtype).view(torch.uint8).numpy(), name) is finite
    for nan in (float("nan"), -float("nan")):
        assert not all_finite(torch.tensor([1.0, nan], dtype=dtype).view(torch.uint8).numpy(), name)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtypes", [("F32",), ("BF16",), ("BF16", "F32"), ("F32", "F16", "BF16")])
def test_the_tensor_that_is_not_finite_is_named(value: float, dtypes: tuple[str, ...]) -> None:
    tensors = random_tensors()
    modules = sorted({name.rpartition(".lora_")[0] for name in tensors})
    tensors = {
        name: tensor.to(DTYPES[dtypes[modules.index(name.rpartition(".lora_")[0]) % len(dtypes)]])
        for name, tensor in tensors.items()
    }
    read_adapter_bytes(files()[0], save(tensors))
    for name, tensor in tensors.items():
        spoiled = tensor.clone()
        spoiled[-1, -1] = value
        with pytest.raises(InvalidInput, match=f"{name} holds numbers that are not finite"):
            read_adapter_bytes(files()[0], save(tensors | {name: spoiled}))
