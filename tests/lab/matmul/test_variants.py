import pytest
import torch

from loralens.lab.device import Device
from loralens.lab.matmul.catalogue import VARIANTS
from loralens.lab.matmul.problem import ProductTensors, relative_error
from loralens.lab.matmul.variants.registry import REGISTRY
from loralens.lab.words import BenchmarkRequest

LIMIT = {"float32": 2e-6, "bfloat16": 8e-3}
NOT_LORA = ("dense", "dense_again", "packed_dense", "packed_touch", "graph_dense", "full_gradient")
SLOW = ("compiled",)
"""Left to the tests marked slow: compiling takes up to a minute."""


def cases(*, slow=False):
    return [
        pytest.param(info.mode, info.id, id=f"{info.mode}-{info.id}") for info in VARIANTS if (info.id in SLOW) == slow
    ]


def check(mode, name, dtype, **sizes):
    about = {"tokens": 5, "in_features": 96, "out_features": 160, "rank": 8, "cache": "hot", "requests": 7, **sizes}
    problem = ProductTensors(BenchmarkRequest(mode=mode, dtype=dtype, **about), Device("cpu"))
    kind = REGISTRY[mode, name]
    if reason := kind.why_not(problem):
        assert len(reason) > 10
        pytest.skip(reason)
    with torch.inference_mode(mode != "training"):
        run = kind(problem)
        run.prepare()
        output = run(0)
        again = run(1)
        run.finish()
    assert output.shape == (problem.rows, 160)
    if mode == "training" and name not in NOT_LORA:
        exact = problem.expected_gradients()
        assert set(run.gradients()) == set(exact)
        for key, value in run.gradients().items():
            part = value[problem.checked] if key == "dx" else value
            assert relative_error(part, exact[key]) < LIMIT[dtype], key
    if name in NOT_LORA:
        expected = (problem.x.double() @ problem.weights[0].double().t())[problem.checked]
    else:
        expected = problem.expected()
    assert relative_error(output[problem.checked], expected) < LIMIT[dtype]
    if name != "merge_switch":  # which wears its weights out, as its note says
        assert torch.equal(output, again)
    assert run.work().flops >= problem.base_work().flops


@pytest.mark.filterwarnings("ignore")  # PEFT warns of a second adapter in a bare model
@pytest.mark.parametrize("dtype", LIMIT)
@pytest.mark.parametrize(("mode", "name"), cases())
def test_every_variant_computes_the_product_in_float64_terms(mode, name, dtype):
    check(mode, name, dtype)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("mode", "name"), cases(slow=True))
def test_compiled_variants_too(mode, name):
    check(mode, name, "float32")


@pytest.mark.parametrize(("mode", "name"), [case for case in cases() if "peft" not in case.values[1]])
def test_odd_sizes_too(mode, name):
    check(mode, name, "float32", rank=3, in_features=33, tokens=1)


def test_the_catalogue_and_the_classes_name_the_same_variants():
    assert set(REGISTRY) == {(info.mode, info.id) for info in VARIANTS}
    assert len(VARIANTS) == len({(info.mode, info.id) for info in VARIANTS})


def test_merging_back_and_forth_says_what_it_did_to_the_weights():
    problem = ProductTensors(
        BenchmarkRequest(mode="adapters", dtype="bfloat16", in_features=64, out_features=64, cache="hot"),
        Device("cpu"),
    )
    run = REGISTRY["adapters", "merge_switch"](problem)
    run.prepare()
    with torch.inference_mode():
        for index in range(5):
            run(index)
        run.finish()
    assert "W is off by" in run.notes[0]
    assert not torch.equal(run.weights[0], problem.weights[0])


def test_what_cannot_run_says_why():
    problem = ProductTensors(BenchmarkRequest(mode="adapters", in_features=32, out_features=32, rank=3), Device("cpu"))
    assert "multiple of 4" in REGISTRY["adapters", "grouped_mm"].why_not(problem)
    assert "CUDA" in REGISTRY["forward", "triton_split"].why_not(problem)
    half = ProductTensors(BenchmarkRequest(dtype="float16", in_features=32, out_features=32), Device("cpu"))
    reason = REGISTRY["forward", "dense"].why_not(half)
    assert reason is None or "float16" in reason
