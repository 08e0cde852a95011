import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loralens.core.errors import InvalidInput
from loralens.lab.matmul import packed
from loralens.lab.matmul.counts import count, saved_bytes
from loralens.lab.matmul.factors import transposed
from loralens.lab.matmul.layer import LoraLinear
from loralens.lab.matmul.packed import PackedWeight
from loralens.lab.matmul.table import AdapterTable

MIB = 2**20


def normal(*shape, seed=0, dtype=torch.float32, std=1.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).mul_(std).to(dtype)


def layer_with(adapters=1, *, dtype=torch.float32, size=(96, 64), ranks=(4,), scaling=2.0, bias=False, **options):
    """A layer and its adapters as the test knows them: name to (A, B, scaling)."""
    out, features = size
    weight = normal(out, features, seed=1, dtype=dtype, std=features**-0.5)
    layer = LoraLinear(weight, normal(out, seed=2, dtype=dtype) if bias else None, **options)
    known = {}
    for number in range(adapters):
        rank = ranks[number % len(ranks)]
        a, b = normal(rank, features, seed=10 + number, dtype=dtype), normal(out, rank, seed=50 + number, dtype=dtype)
        known[f"n{number}"] = (a, b, scaling + number)
        layer.set_adapter(f"n{number}", a, b, scaling + number)
    return layer, known


def exact(layer, x, pair=None):
    """x·(W + s·B·A)ᵀ + bias in float64."""
    weight = layer.weight.double()
    if pair is not None:
        weight = weight + pair[2] * pair[1].double() @ pair[0].double()
    y = x.double() @ weight.t()
    return y if layer.bias is None else y + layer.bias.double()


def error(actual, expected):
    return float((actual.double() - expected).norm() / expected.norm())


LIMIT = {torch.float32: 1e-6, torch.bfloat16: 6e-3}


@pytest.mark.parametrize("dtype", LIMIT)
@pytest.mark.parametrize("base", ["stock", "packed after", "packed epilogue", "packed float32"])
@pytest.mark.parametrize("bias", [False, True])
def test_outputs_equal_the_merged_product_in_float64(dtype, base, bias):
    if base != "stock" and (reason := packed.why_not(dtype)):
        pytest.skip(reason)
    join = "after" if base == "stock" else base.split()[1]
    layer, known = layer_with(2, dtype=dtype, ranks=(4, 7), bias=bias, join=join)
    if base != "stock":
        layer._packed = PackedWeight(layer.weight)
    x = normal(9, 64, seed=3, dtype=dtype)
    with torch.inference_mode():
        for name, pair in known.items():
            layer.table.use(name)
            assert error(layer(x), exact(layer, x, pair)) < LIMIT[dtype]
            assert error(layer(x.view(3, 3, 64)).view(9, 96), exact(layer, x, pair)) < LIMIT[dtype]
        layer.table.use(None)
        assert error(layer(x), exact(layer, x)) < LIMIT[dtype]


@pytest.mark.parametrize("dtype", LIMIT)
@pytest.mark.parametrize("pack", [False, True])
def test_each_row_of_a_mixed_batch_gets_its_own_adapter_or_none(dtype, pack):
    layer, known = layer_with(3, dtype=dtype, ranks=(4, 8, 1))
    if pack:
        if reason := packed.why_not(dtype):
            pytest.skip(reason)
        layer._packed, layer._join = PackedWeight(layer.weight), "epilogue"
    names = ["n1", None, "n0", "n2", "n1", "n0"]
    x = normal(6, 64, seed=3, dtype=dtype)
    rows = layer.table.rows(names)
    with torch.inference_mode():
        y = layer(x, rows)
        for at, name in enumerate(names):
            pair = known[name] if name else None
            assert error(y[at : at + 1], exact(layer, x[at : at + 1], pair)) < 3 * LIMIT[dtype]


def test_a_new_adapter_and_a_new_batch_are_seen():
    layer, _ = layer_with(1)
    x = normal(2, 64, seed=3)
    with torch.inference_mode():
        before = layer(x, layer.table.rows(["n0", None]))
        a, b = normal(3, 64, seed=7), normal(96, 3, seed=8)
        layer.set_adapter("new", a, b, 1.5)
        after = layer(x, layer.table.rows([None, "new"]))
    assert error(before[1:], exact(layer, x[1:])) < 1e-6
    assert error(after[:1], exact(layer, x[:1])) < 1e-6
    assert error(after[1:], exact(layer, x[1:], (a, b, 1.5))) < 1e-6


@given(rank=st.integers(1, 40), rows=st.integers(1, 20), scaling=st.floats(0.01, 100))
def test_a_fresh_adapter_leaves_every_output_as_it_was(rank, rows, scaling):
    layer, _ = layer_with(0)
    layer.set_adapter("fresh", normal(rank, 64, seed=rank), torch.zeros(96, rank), scaling)
    x = normal(rows, 64, seed=rows)
    with torch.inference_mode():
        base = layer(x)
        layer.table.use("fresh")
        assert torch.equal(layer(x), base)


def test_one_write_switches_every_layer_of_a_model():
    table = AdapterTable()
    layers = []
    for seed in range(5):
        layer = LoraLinear(normal(8, 8, seed=seed), table=table)
        for name in ("a", "b"):
            layer.set_adapter(name, normal(2, 8, seed=seed), normal(8, 2, seed=seed + ord(name)), 1.0)
        layers.append(layer)
    x = normal(1, 8)
    with torch.inference_mode():
        table.use("a")
        first = [layer(x) for layer in layers]
        table.index = table.position["b"]
        assert not any(torch.equal(layer(x), y) for layer, y in zip(layers, first, strict=True))
        table.use("a")
        assert all(torch.equal(layer(x), y) for layer, y in zip(layers, first, strict=True))


def test_what_does_not_fit_is_refused():
    layer, _ = layer_with(1)
    with pytest.raises(InvalidInput, match=r"takes \(rank, 64\) and \(96, rank\)"):
        layer.set_adapter("x", torch.zeros(4, 65), torch.zeros(96, 4), 1.0)
    with pytest.raises(InvalidInput, match="unknown"):
        layer.table.rows(["n0", "unknown"])
    with pytest.raises(InvalidInput) as caught:
        layer.table.use("unknown")
    assert "n0" in caught.value.hint


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_three_operations_per_call_and_four_for_a_mixed_batch(dtype):
    layer, _ = layer_with(6, dtype=dtype)
    x = normal(8, 64, dtype=dtype)
    rows = layer.table.rows([f"n{number % 6}" for number in range(8)])
    with torch.inference_mode():
        layer.table.use("n3")
        assert count(lambda: layer(x)).names == ["linear", "linear", "addmm_"]
        layer(x, rows)  # the mask of a batch is made once for all calls
        assert count(lambda: layer(x, rows)).names == ["linear", "mul_", "linear", "addmm_"]


def test_a_packed_base_needs_no_further_operation():
    if reason := packed.why_not(torch.bfloat16):
        pytest.skip(reason)
    layer, _ = layer_with(1, dtype=torch.bfloat16)
    layer._packed = PackedWeight(layer.weight)
    layer.table.use("n0")
    x = normal(8, 64, dtype=torch.bfloat16)
    with torch.inference_mode():
        assert count(lambda: layer(x)).names == ["linear", "mkldnn._linear_pointwise", "addmm_"]


def training_layer(dtype=torch.bfloat16, rows=512, features=4096):
    weight = normal(features, features, dtype=dtype, std=0.02)
    layer = LoraLinear(weight)
    layer.set_adapter("a", normal(8, features, dtype=dtype, std=0.02), normal(features, 8, dtype=dtype, std=0.02), 2.0)
    layer.table.use("a")
    layer.trainable("a")
    return layer, normal(rows, features, dtype=dtype, seed=1).requires_grad_()


def test_a_training_forward_makes_no_more_than_its_output_and_keeps_only_its_input():
    layer, x = training_layer()
    counts = count(lambda: layer(x))
    assert counts.names == ["mm", "mm", "addmm_"]
    assert counts.materialised_bytes == 512 * 4096 * 2 + 512 * 8 * 2 <= 4.01 * MIB
    assert saved_bytes(lambda: layer(x), [x, layer.weight, *layer.trainable("a")]) == 0


@pytest.mark.parametrize(("scaling", "operations"), [(2.0, 8), (1.7, 6)])
def test_backward_takes_eight_operations_at_the_most(scaling, operations):
    layer, x = training_layer(torch.float32, 16, 64)
    layer.set_adapter("a", normal(8, 64, seed=8), normal(64, 8, seed=9), scaling)
    parameters = layer.trainable("a")
    y = layer(x)
    g = normal(16, 64, seed=5)
    names = count(lambda: torch.autograd.grad(y, [x, *parameters], g)).names
    assert len([name for name in names if name != "new_empty"]) == operations


def test_gradients_pass_the_numerical_check():
    layer, _ = layer_with(1, dtype=torch.float64, size=(7, 6), ranks=(3,), bias=True)
    layer.table.use("n0")
    a, b = layer.trainable("n0")
    x = normal(5, 6, seed=4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, a, b: layer(x), (x, a, b))


@pytest.mark.parametrize("dtype", LIMIT)
@pytest.mark.parametrize("scaling", [2.0, 1.7])
@pytest.mark.parametrize("join", ["after", "apart"])
def test_gradients_equal_those_of_the_merged_product_in_float64(dtype, scaling, join):
    layer, known = layer_with(1, dtype=dtype, scaling=scaling, join=join)
    layer.table.use("n0")
    a, b = layer.trainable("n0")
    x = normal(9, 64, seed=3, dtype=dtype).requires_grad_()
    g = normal(9, 96, seed=6, dtype=dtype)
    found = torch.autograd.grad(layer(x), [x, a, b], g)
    x64, a64, b64 = (t.detach().double().requires_grad_() for t in (x, known["n0"][0], known["n0"][1]))
    y64 = x64 @ (layer.weight.double() + known["n0"][2] * b64 @ a64).t()
    expected = torch.autograd.grad(y64, [x64, a64, b64], g.double())
    for actual, right in zip(found, expected, strict=True):
        assert error(actual, right) < LIMIT[dtype]


@given(out=st.integers(1, 70), rank=st.integers(1, 20))
def test_the_fast_transpose_moves_bits_only(out, rank):
    b = normal(out, rank, dtype=torch.bfloat16)
    assert torch.equal(transposed(b), b.t()) and transposed(b).is_contiguous()


def test_adapters_of_peft_are_loaded_as_they_are(tmp_path):
    peft = pytest.importorskip("peft")
    from loralens.lab.adapters.files import read_adapter

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.q_proj = torch.nn.Linear(32, 48, bias=True)

        def forward(self, x):
            return self.q_proj(x)

    torch.manual_seed(0)
    model = peft.get_peft_model(
        Model(),
        peft.LoraConfig(r=6, lora_alpha=9, target_modules=["q_proj"], init_lora_weights=False, use_rslora=True),
    )
    model.save_pretrained(tmp_path)
    factors = read_adapter(tmp_path).factors
    base = model.base_model.model.q_proj.base_layer
    layer = LoraLinear(base.weight.detach(), base.bias.detach())
    (theirs,) = factors.values()
    layer.check(theirs)
    layer.set_adapter("theirs", theirs.lora_a, theirs.lora_b, theirs.scaling)
    layer.table.use("theirs")
    x = normal(5, 32, seed=1)
    with torch.inference_mode():
        assert torch.allclose(layer(x), model.eval()(x), atol=1e-6)
        assert not torch.allclose(layer(x), base(x), atol=1e-2)
