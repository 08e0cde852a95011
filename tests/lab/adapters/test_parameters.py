"""Factors of stacked experts: which expert's is which, against PEFT's own update; what does not follow from the file is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from loralens.core.errors import InputTooLarge, InvalidInput
from loralens.lab.adapters.adapter import Adapter, assemble
from loralens.lab.adapters.comparing import compare_adapters
from loralens.lab.adapters.config import config_from_mapping
from loralens.lab.adapters.inspect import inspect_adapter
from loralens.lab.adapters.resize import resize_adapter

EXPERTS = "model.layers.0.mlp.experts"


def _adapter(seed: int = 0, experts: int = 3, **changes: Any) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    ranks = changes.pop("ranks", (4, 4))
    tensors = {}
    for module, rank, fan_in, fan_out in ((f"{EXPERTS}.base_layer", ranks[0], 8, 12), (EXPERTS, ranks[1], 6, 8)):
        name = f"base_model.model.{module}"
        tensors[f"{name}.lora_A.weight"] = torch.randn(rank * experts, fan_in, generator=generator)
        tensors[f"{name}.lora_B.weight"] = torch.randn(fan_out, rank * experts, generator=generator)
    given = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "target_parameters": ["experts.down_proj", "experts.gate_up_proj"],
    }
    return assemble(config_from_mapping(given | changes), tensors)


def _dense(adapter: Adapter, module: str) -> torch.Tensor:
    """The update (experts, out_features, in_features) by PEFT's own equation, ParamWrapper.get_delta_weight."""
    factors = adapter.factors[module]
    a, b = factors.lora_a.double(), factors.lora_b.double()
    a = a.reshape(factors.experts, -1, a.shape[-1])
    return torch.einsum("o r e, e r i -> e o i", b.reshape(b.shape[0], -1, factors.experts), a) * factors.scaling


def test_the_spectrum_is_that_of_all_experts_together() -> None:
    adapter = _adapter()
    for report in inspect_adapter(adapter).modules:
        values = torch.linalg.svdvals(_dense(adapter, report.module))[:, :4]
        assert report.rank == 4 and report.singular_values == pytest.approx(values.square().sum(0).sqrt().tolist())
        assert report.norm == pytest.approx(float(_dense(adapter, report.module).norm()))


def test_resizing_truncates_each_expert_and_states_the_error() -> None:
    adapter = _adapter()
    answer = resize_adapter(adapter, rank=2)
    for error in answer.modules:
        dense = _dense(adapter, error.module)
        off = (_dense(answer.adapter, error.module) - dense).norm() / dense.norm()
        values = torch.linalg.svdvals(dense)
        assert error.relative_error == pytest.approx(float(off)) == float(values[:, 2:].norm() / values.norm())
    assert answer.parameters == sum(3 * 2 * (fan_in + fan_out) for fan_in, fan_out in ((8, 12), (6, 8)))
    with pytest.raises(InvalidInput, match="names parameters"):
        resize_adapter(adapter, energy=0.9, mixed=True)


def test_experts_are_compared_one_by_one() -> None:
    first, second = _adapter(0), _adapter(1)
    for one in compare_adapters(first, second).modules:
        module, _, number = one.module.partition("[")
        a, b = (_dense(adapter, module)[int(number[:-1])] for adapter in (first, second))
        assert one.cosine == pytest.approx(float((a * b).sum() / a.norm() / b.norm()))


def test_ranks_by_parameter_are_read_where_one_reading_fits() -> None:
    by_parameter = {"rank_pattern": {"gate_up_proj": 6}, "alpha_pattern": {"gate_up_proj": 3}}
    adapter = _adapter(ranks=(6, 4), **by_parameter)
    assert {module: (f.rank, f.experts, f.scaling) for module, f in adapter.factors.items()} == {
        EXPERTS: (4, 3, 2.0), f"{EXPERTS}.base_layer": (6, 3, 0.5),
    }  # fmt: skip
    with pytest.raises(InvalidInput, match="does not stand in the file"):
        _adapter(alpha_pattern={"gate_up_proj": 3})
    with pytest.raises(InvalidInput, match="fit no parameter"):
        _adapter(ranks=(4, 5))
    many = [f"experts.{name}_proj" for name in "abcdef"]
    with pytest.raises(InvalidInput, match="too many to tell apart"):
        _adapter(target_parameters=many, alpha_pattern={"a_proj": 3})
    with pytest.raises(InputTooLarge, match="65 patterns"):
        _adapter(alpha_pattern={f"{number}_proj": 3 for number in range(65)})
    assert _adapter(target_parameters=many).factors[EXPERTS].experts == 3
    with pytest.raises(InvalidInput, match="fit no parameter"):
        _adapter(target_parameters=["experts.down_proj"])
