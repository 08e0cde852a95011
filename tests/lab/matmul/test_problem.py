import torch

from loralens.lab.device import Device
from loralens.lab.matmul.problem import ProductTensors, relative_error
from loralens.lab.words import BenchmarkRequest


def problem(**settings):
    about = {"in_features": 48, "out_features": 32, "tokens": 3, "rank": 4, "cache": "hot", **settings}
    return ProductTensors(BenchmarkRequest(**about), Device("cpu"))


def test_work_is_counted_by_hand():
    p = problem()
    base, adapter = p.base_work(), p.adapter_work()
    assert (base.flops, base.bytes) == (2 * 3 * 48 * 32, 4 * (48 * 32 + 3 * (48 + 32)))
    assert (adapter.flops, adapter.bytes) == (2 * 3 * 4 * (48 + 32), 4 * 4 * (48 + 32))
    assert (base + adapter).flops == base.flops + adapter.flops


def test_the_same_seed_gives_the_same_numbers_in_every_dtype():
    assert torch.equal(problem().x.bfloat16(), problem(dtype="bfloat16").x)
    assert not torch.equal(problem().x, problem(seed=1).x)


def test_expected_outputs_follow_the_definition_row_by_row():
    p = problem(mode="adapters", adapters=3, requests=5, tokens=2)
    y = p.expected()
    for at, row in enumerate(p.checked.tolist()):
        adapter = p.request_ids[row // 2]
        weight = p.weights[0].double() + p.scaling * p.all_b[adapter].double() @ p.all_a[adapter].double()
        assert relative_error(y[at], weight @ p.x[row].double()) < 1e-12


def test_expected_gradients_are_those_of_autograd():
    p = problem(mode="training", tokens=7)
    x, a, b = (tensor.double().requires_grad_() for tensor in (p.x, p.lora_a, p.lora_b))
    y = x @ (p.weights[0].double() + p.scaling * b @ a).t()
    for name, right in zip(("dx", "da", "db"), torch.autograd.grad(y, [x, a, b], p.grad.double()), strict=True):
        assert relative_error(p.expected_gradients()[name], right) < 1e-12


def test_an_error_that_is_not_finite_is_no_number():
    assert relative_error(torch.tensor([float("nan"), 1.0]), torch.ones(2).double()) is None
    assert relative_error(torch.tensor([float("inf")]), torch.ones(1).double()) is None
    assert relative_error(torch.tensor([1.5]), torch.ones(1).double()) == 0.5
