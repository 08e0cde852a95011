"""When a tensor ends: said by the code, counted by the tape, never asked of the interpreter."""

import ast
from pathlib import Path

import pytest

import loralens.core
from loralens.core.architecture.module import Module
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe
from loralens.core.step.events import record
from loralens.core.tape import ops
from loralens.core.tape.ledger import Ledger
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import ONE, ZERO
from loralens.core.tape.tape import Tape

CORE = Path(loralens.core.__file__).parent


@pytest.fixture
def t():
    tape = Tape(Ledger())
    tape.ledger.enter("forward")
    return tape


def vector(t, label="x"):
    return t.new(ONE * 100, "float32", 100, label)


def trained(t):
    parameter = Parameter((1, 100))
    parameter.trainable, parameter.label = True, "weight"
    return t.parameter(parameter)


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: str(path.relative_to(CORE)))
def test_no_name_is_deleted_and_no_reference_counted(path):
    """`del name` reads like a dead line, and what an interpreter counts differs between its versions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Delete):
            assert not any(isinstance(target, ast.Name) for target in node.targets), f"line {node.lineno}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            assert not names & {"gc", "getrefcount"}, f"line {node.lineno}"
        if isinstance(node, ast.Attribute):
            assert node.attr != "getrefcount", f"line {node.lineno}"


def test_what_has_ended_cannot_be_used(t):
    x = vector(t)
    t.end(x, None)
    assert t.ledger.total == ZERO
    with pytest.raises(RuntimeError, match="ended"):
        ops.scale(t, x, "scaled")


def test_the_graph_holds_what_it_saved_when_a_name_ends(t):
    x = vector(t)
    t.require_grad(x)
    y = ops.tanh(t, x, "y")
    loss = ops.scale(t, y, "loss")
    t.end(y)
    assert t.ledger.entries[("activations", "y")] == ONE * 400
    t.backward(loss)
    assert ("activations", "y") not in t.ledger.entries


def test_a_temporary_ends_with_its_block_and_a_replaced_tensor_after_its_successor(t):
    with t.temporary(ONE * 100, "float32", 100, "workspace"):
        out = vector(t, "out")
    assert set(t.ledger.entries) == {("activations", "out")}
    out = t.replace(out, vector(t, "second"))
    assert set(t.ledger.entries) == {("activations", "second")}
    t.ledger.settle()
    assert [moment.total for moment in t.ledger.moments] == [ONE * 800]
    t.end(out)


def test_a_local_variable_lives_until_the_modules_forward_returns(t):
    seen = []

    class Inner(Module):
        def forward(self, t):
            t.local(vector(t, "inner"))
            seen.append(set(label for _, label in t.ledger.entries))

    class Outer(Module):
        def forward(self, t):
            t.local(vector(t, "outer"))
            Inner()(t)
            seen.append(set(label for _, label in t.ledger.entries))

    Outer()(t)
    assert seen == [{"outer", "inner"}, {"outer"}]
    assert t.ledger.entries == {}


def sums(t):
    return sum(moment.entries.get(("temporaries", "sum of gradients"), ZERO) != ZERO for moment in t.ledger.moments)


def test_a_gradient_is_added_in_place_only_where_no_other_slot_holds_the_first(t):
    """Source: torch/csrc/autograd/input_buffer.cpp, `can_accumulate_inplace`."""
    w = trained(t)
    t.ledger.enter("backward")
    t.backward(ops.add(t, ops.scale(t, w, "a"), ops.scale(t, w, "b"), "loss"))
    assert sums(t) == 0  # each branch made a gradient of its own

    w = trained(t)
    x = ops.scale(t, w, "x")
    t.backward(ops.add(t, x, x, "loss"))
    assert sums(t) == 1  # both are the seed, which the caller holds


def test_a_first_gradient_that_is_held_elsewhere_is_cloned(t):
    """Source: torch/csrc/autograd/functions/accumulate_grad.h, `AccumulateGrad::accumulateGrad`."""
    w = trained(t)
    t.backward(ops.shift(t, w, "loss"))  # the gradient is the seed itself
    [gradient] = t.gradients.values()
    assert t.ledger.entries == {("gradients", "gradients: weight"): ONE * 400}
    assert gradient.slots == 1


def test_leaves_run_in_an_order_of_the_graphs_own():
    """It was that of memory addresses: timelines of models with biases differed from run to run."""
    model = resolve("llama-2-7b")
    found, littered = [], []
    for _ in range(4):
        found.append(record(model, "full", Recipe()).first.events)
        littered += [bytearray(size) for size in range(1, 4000, 7)]
        del littered[::3]
    assert all(events == found[0] for events in found)


def test_a_tape_without_a_recipe_has_no_numbers_to_decide_by():
    with pytest.raises(RuntimeError, match="no numbers of its own"):
        Tape(Ledger()).validity.exceeds("sequence_length", 1)
