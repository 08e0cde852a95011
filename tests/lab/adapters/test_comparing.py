"""Comparisons against dense linear algebra."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.comparing import compare_adapters

from .helpers import random_adapter, update


def test_against_dense_algebra() -> None:
    one, two = random_adapter(rank=3), random_adapter(rank=5, lora_alpha=3)
    answer = compare_adapters(one, two, energy=1.0)
    dense = [[update(f.lora_a, f.lora_b, f.scaling) for f in adapter.factors.values()] for adapter in (one, two)]
    a, b = (torch.cat([matrix.flatten() for matrix in side]) for side in dense)
    assert answer.cosine == pytest.approx(float(a @ b / a.norm() / b.norm()), abs=1e-9)
    assert answer.relative_difference == pytest.approx(float((a - b).norm() / (a.norm() * b.norm()).sqrt()), rel=1e-9)
    module = next(iter(one.factors))
    found = next(row for row in answer.modules if row.module == module)
    left = [torch.linalg.svd(update(x.factors[module].lora_a, x.factors[module].lora_b, 1.0)).U for x in (one, two)]
    overlap = left[0][:, :3].T @ left[1][:, :5]
    assert found.similarity == pytest.approx(float(overlap.square().sum() / 3), abs=1e-9)
    angles = torch.rad2deg(torch.linalg.svdvals(overlap).clamp(max=1).acos())
    assert found.output_angles == pytest.approx(angles.tolist(), abs=1e-6) and len(found.input_angles) == 3


def test_the_same_and_the_scaled() -> None:
    one = random_adapter()
    same = compare_adapters(one, one)
    assert (
        same.cosine == pytest.approx(1)
        and same.relative_difference < 1e-6
        and max(same.modules[0].output_angles) < 1e-3
    )
    twice = replace(one, factors={name: replace(f, scaling=-2 * f.scaling) for name, f in one.factors.items()})
    assert compare_adapters(one, twice).cosine == pytest.approx(-1)


def test_modules_of_one_alone_count() -> None:
    one = random_adapter()
    fewer = replace(one, factors=dict(list(one.factors.items())[1:]))
    answer = compare_adapters(one, fewer)
    assert answer.only_first == [next(iter(one.factors))] and answer.only_second == [] and answer.cosine < 1
    with pytest.raises(InvalidInput, match="different shapes"):
        compare_adapters(one, random_adapter(width=20))
    with pytest.raises(InvalidInput, match="no module in common"):
        compare_adapters(one, replace(one, factors={"other": next(iter(one.factors.values()))}))
