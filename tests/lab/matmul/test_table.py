"""One table for all layers: places, selections of a thread's own, and what replaced or trained adapters leave behind."""

import threading

import pytest
import torch
from torch import nn

from loralens.core.errors import InvalidInput
from loralens.lab.matmul.layer import LoraLinear
from loralens.lab.matmul.table import BASE, AdapterTable, Rows, Selection, using

from .test_layer import error, exact, layer_with, normal


def test_places_are_reused_but_not_while_a_request_reads_them():
    table = AdapterTable()
    assert [table.place(name) for name in "abc"] == [0, 1, 2]
    assert table.place("b") == 3 and table.names == ["a", None, "c", "b"]  # the old place stays untouched
    assert table.place("d", pinned={1}) == 4
    table.remove("a")
    assert table.place("e", pinned={1}) == 0 and table.place("f") == 1
    assert table.add("c") == table.position["c"] == 2
    table.use("e")
    table.index = table.position["f"]
    assert (table.selection.adapter, table.index) == ("f", 1)
    table.index = BASE
    assert table.selection.adapter is None
    with pytest.raises(InvalidInput) as caught:
        table.use("a")
    assert "d" in caught.value.hint


def test_a_thread_keeps_its_own_selection_while_another_switches():
    layer, known = layer_with(2)
    x = normal(3, 64, seed=3)
    inside, switched, found = threading.Event(), threading.Event(), []

    def request():
        with using(layer.table.prepared("n0")), torch.inference_mode():
            found.append(layer(x))
            inside.set()
            assert switched.wait(30)
            found.append(layer(x))

    thread = threading.Thread(target=request)
    thread.start()
    assert inside.wait(30)
    layer.table.use("n1")
    switched.set()
    thread.join()
    assert torch.equal(*found) and error(found[0], exact(layer, x, known["n0"])) < 1e-6
    with torch.inference_mode():
        assert error(layer(x), exact(layer, x, known["n1"])) < 1e-6


def test_selections_may_bring_pairs_or_merged_weights():
    layer, known = layer_with(1, bias=True)
    layer.name = "q"
    x = normal(2, 3, 64, seed=3)
    merged = (layer.weight + 2.0 * known["n0"][1] @ known["n0"][0]).detach()
    expected = exact(layer, x, known["n0"])
    for selection in (Selection(pairs={"q": layer.pair(0)}), Selection(weights={"q": merged}), Selection(index=0)):
        with using(selection), torch.inference_mode():
            assert error(layer(x), expected) < 1e-6
    for selection in (Selection(pairs={}), Selection(weights={}), Selection(index=7), Selection(rows=Rows((5, BASE)))):
        with using(selection), torch.inference_mode():
            assert error(layer(x), exact(layer, x)) < 1e-6


def test_rows_of_a_sequence_belong_to_the_adapter_of_their_sample():
    layer, known = layer_with(2, ranks=(4, 3))
    x = normal(3, 5, 64, seed=3)
    with torch.inference_mode():
        y = layer(x, layer.table.rows(["n1", None, "n0"]))
        for at, name in enumerate(("n1", None, "n0")):
            assert error(y[at], exact(layer, x[at], known.get(name))) < 1e-6
        with pytest.raises(InvalidInput, match="do not divide"):
            layer(x[0], layer.table.rows(["n1", "n0"]))


def test_two_batches_in_turn_do_not_mix():
    layer, known = layer_with(3)
    x = normal(2, 64, seed=3)
    batches = [["n0", "n1"], ["n2", "n0"]]
    rows = [layer.table.rows(names) for names in batches]
    with torch.inference_mode():
        for turn in range(6):
            y = layer(x, rows[turn % 2])
            for at, name in enumerate(batches[turn % 2]):
                assert error(y[at : at + 1], exact(layer, x[at : at + 1], known[name])) < 1e-6


def test_a_batch_met_in_inference_can_be_trained_through_afterwards():
    layer, known = layer_with(2)
    x, rows = normal(2, 64, seed=3).requires_grad_(), layer.table.rows(["n0", "n1"])
    with torch.inference_mode():
        layer(x.detach(), rows)
    g = normal(2, 96, seed=4)
    (dx,) = torch.autograd.grad(layer(x, rows), [x], g)
    for at, name in enumerate(("n0", "n1")):
        a, b, scaling = known[name]
        right = g[at].double() @ (layer.weight.double() + scaling * b.double() @ a.double())
        assert error(dx[at], right) < 1e-6


@pytest.mark.parametrize("join", ["after", "float32"])
def test_copies_of_factors_do_not_outlive_a_training_step(join):
    layer, _ = layer_with(2, dtype=torch.bfloat16, join=join)
    x, rows = normal(2, 64, dtype=torch.bfloat16), layer.table.rows(["n0", "n1"])
    layer.table.use("n0")
    with torch.no_grad():
        layer(x, rows)
    a, b = layer.trainable("n0")
    with torch.no_grad():
        a.mul_(3.0)
        b.add_(1.0)
        pair = (a, b, 2.0)
        assert error(layer(x), exact(layer, x, pair)) < 6e-3
        assert error(layer(x, rows)[:1], exact(layer, x[:1], pair)) < 6e-3


class Doubled(nn.Linear):
    """Stands for a layer with its own way to multiply, such as a quantized one."""

    def forward(self, x):
        return 2 * super().forward(x)


def test_a_layer_of_another_kind_keeps_its_own_product_and_adapters_over_integers_are_float32():
    base = Doubled(64, 96, dtype=torch.bfloat16).requires_grad_(False)
    layer = LoraLinear.over(base, table=AdapterTable(), name="q")
    assert layer.weight is base.weight and layer.bias is base.bias
    a, b = normal(4, 64, seed=1), normal(96, 4, seed=2)
    layer.set_adapter("n", a, b, 1.5)
    layer.table.use("n")
    x = normal(3, 64, dtype=torch.bfloat16, seed=3)
    expected = base(x).double() + 1.5 * (x.double() @ a.double().t()) @ b.double().t()
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            assert error(layer(x), expected) < 8e-3
            assert error(layer(x, Rows((0, BASE, 0)))[::2], expected[::2]) < 8e-3
    integers = Doubled(64, 96)
    integers.weight = nn.Parameter(torch.zeros(96, 64, dtype=torch.int8), requires_grad=False)
    integers.forward = lambda x: torch.zeros(x.shape[0], 96, dtype=x.dtype)
    layer = LoraLinear.over(integers, table=AdapterTable(), name="q")
    layer.set_adapter("n", a, b, 1.5)
    layer.table.use("n")
    assert layer.pair(0)[0].dtype is torch.float32
    with torch.inference_mode():
        assert error(layer(x), expected - base(x).double()) < 6e-3
