"""Rows of operators beside PyTorch's own: what its code generator says that an operator saves for each of its gradients.

The oracle is torchgen, which makes PyTorch's autograd out of derivatives.yaml; both are files of the installed wheel. Each
operator is also walked on a tape, for every choice of gradients that can be wanted: what its node then holds is what the row
says, and where PyTorch's formula is the incoming gradient, ours is too.
"""

import inspect
import itertools
import re
from functools import cache
from pathlib import Path

import pytest
import torchgen
import yaml
from torchgen.model import Location, NativeFunction
from torchgen.packaged.autograd.load_derivatives import create_derivative

from loralens.core.architecture.blocks import layer_norm
from loralens.core.architecture.convolution import Convolution
from loralens.core.architecture.families.projected import average
from loralens.core.architecture.families.t5_layers import clamped
from loralens.core.architecture.module import Embedding
from loralens.core.architecture.moe import Experts, best
from loralens.core.objectives.divergences import log_of_sum
from loralens.core.question.recipe import Recipe
from loralens.core.tape import derivatives, folding, ops, selecting
from loralens.core.tape.attention import Attention
from loralens.core.tape.ledger import Ledger
from loralens.core.tape.rows import Derivative, Plain
from loralens.core.tape.scatter import index_added, index_copied, masked_scatter, put
from loralens.core.tape.size import ONE, TOKENS
from loralens.core.tape.tape import Tape
from loralens.core.tape.validity import Validity

PACKAGED = Path(torchgen.__file__).parent / "packaged"
ROWS = {name: row for name, row in vars(derivatives).items() if isinstance(row, Derivative)}
PLAIN = {name: row for name, row in ROWS.items() if isinstance(row, Plain)}
PASSED_ON = ("grad", "handle_r_to_c(self.scalar_type(), grad)")


@cache
def text(path):
    return (PACKAGED / path).read_text(encoding="utf-8")


def entry(path, key, name):
    found = re.search(rf"^- {key}: {re.escape(name)}\(.*?(?=^- |^#|\Z)", text(path), re.M | re.S)
    assert found, f"PyTorch's table has no {name}"
    return yaml.safe_load(found[0])[0]


@cache
def formulas(name):
    """PyTorch's formulas by the inputs that they are gradients of, and the operator."""
    declared = entry("ATen/native/native_functions.yaml", "func", name)
    tags = declared.get("tags", [])
    function, _ = NativeFunction.from_yaml(
        declared, Location(Path(), 0), {tags} if isinstance(tags, str) else set(tags)
    )
    row = entry("autograd/derivatives.yaml", "name", name)
    row |= row.pop("dispatch", {}).get("Default", {})
    inputs = {argument.name for argument in function.func.arguments.flat_all}
    found = {}
    for names, formula in row.items():
        wanted = tuple(each.strip() for each in names.split(","))
        if inputs.issuperset(wanted) and formula != "non_differentiable":
            found[wanted] = formula
    return function, found


def saved_by_torch(name):
    """By input: the tensors that PyTorch saves for this input's gradient."""
    function, found = formulas(name)
    saved = {}
    for wanted, formula in found.items():
        derivative = create_derivative(function, formula, wanted, ())
        tensors = {
            each.nctype.name
            for each in (*derivative.saved_inputs, *derivative.saved_outputs)
            if tensor(each.nctype.type)
        }
        saved |= dict.fromkeys(wanted, tensors)
    return saved


def tensor(ctype):
    inner = getattr(ctype, "elem", ctype)
    return tensor(inner) if inner is not ctype else getattr(ctype.type, "name", "") == "Tensor"


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_row_keeps_for_each_gradient_what_pytorch_saves_for_it(row):
    theirs = saved_by_torch(row.name)
    for wanted, kept in row.keeps.items():
        assert {*kept} | ({*row.left_out} & theirs[wanted]) == theirs[wanted], wanted
    assert {*row.left_out} <= set().union(*theirs.values()), "left out, and not there"


@pytest.mark.parametrize("row", PLAIN.values(), ids=PLAIN)
def test_a_plain_operator_is_a_view_and_passes_its_gradient_on_where_pytorchs_does(row):
    function, found = formulas(row.name)
    assert row.passes == (found["self",] in PASSED_ON)
    assert row.view == any(each.annotation for each in function.func.returns)


def linear(t, mat1, mat2):
    return ops.linear(t, mat1, None, "out", weight=mat2)


def experts(t, self, mat2):
    module = Experts(8, 4, 2, "silu")
    module.gate_up_proj.dtype = self.dtype
    module.gate_up_proj.trainable = mat2.node is not None
    return module._grouped(t, self, "gate_up_proj", None, 8, "out", None)[0]


def embedding(t, weight, indices):
    module = Embedding(100, 8)
    module.weight.trainable = weight.node is not None
    return module(t, TOKENS, "out", indices)


def convolution(t, input, weight):
    module = Convolution(8, 8, 3, name="out")
    module.weight.trainable = module.bias.trainable = weight.node is not None
    return module(t, input, TOKENS)


def attention(t, query, key, value, attn_bias=None):
    return Attention(2, 2, 4, 4, "sdpa")(t, query, key, value, attn_bias)


# how an operator with code of its own is walked, and what it makes besides its result, by label
WALKED = {
    "POWER": (lambda t, self: ops.power(t, self, "out"), {}),
    "CLAMP_TENSOR": (lambda t, self: clamped(t, self), {}),
    "MUL": (lambda t, self, other: ops.mul(t, self, other, "out"), {}),
    "ADD": (lambda t, self, other: ops.add(t, self, other, "out"), {}),
    "SUB": (lambda t, self, other: ops.sub(t, self, other, "out"), {}),
    "LOGSUMEXP": (lambda t, self: log_of_sum(t, self), {}),
    "CAT": (lambda t, tensors: ops.cat(t, [tensors, tensors], 16, "out"), {}),
    "SPLIT": (lambda t, self: ops.split(t, self, [4, 4], "out")[0], {}),
    "DROPOUT": (lambda t, input: ops.dropout(t, input, 0.1, "out"), {"out mask": "result1"}),
    "CUMSUM": (lambda t, self: folding.running_sum(t, self, "out"), {}),
    "MASKED_FILL": (lambda t, self: folding.masked_fill(t, self, 8, "out"), {"out: mask": "mask"}),
    "SOLVE_TRIANGULAR": (lambda t, self, B: folding.solve_triangular(t, self, B, "out"), {}),
    "GRID_SAMPLE": (lambda t, input, grid: selecting.grid_sample(t, input, grid, TOKENS * 8, "out"), {}),
    "EMBEDDING_BAG": (
        lambda t, weight, indices, per_sample_weights: selecting.embedding_bag(
            t, weight, indices, per_sample_weights, TOKENS * 8, "out"
        ),
        {"out: offsets": "offsets", "out: bags": "result1", "out: sizes of bags": "result2"},
    ),
    "UPSAMPLE": (lambda t, self: selecting.interpolated(t, self, TOKENS * 8, "out"), {}),
    "STD": (lambda t, self: selecting.deviation(t, self, "out"), {}),
    "MINIMUM": (lambda t, self: selecting.minimum(t, self, "out"), {}),
    "MAXIMUM": (lambda t, self, other: selecting.larger(t, self, other, "out"), {}),
    "DIV": (lambda t, self, other: selecting.divide_by(t, self, other, "out"), {}),
    "GATHER": (lambda t, self, index: selecting.gather(t, self, index, "out"), {}),
    "WHERE": (lambda t, self, other, condition: selecting.where(t, condition, self, other, "out"), {}),
    "BMM": (lambda t, self, mat2: ops.matmul(t, self, mat2, TOKENS * 8, 8, "out"), {}),
    "ADDMM": (linear, {}),
    "GROUPED_MM": (experts, {}),
    "INDEX": (lambda t, self, indices: ops.indexed(t, self, indices, TOKENS * 8, 8, "out"), {}),
    "EMBEDDING": (embedding, {}),
    "TOPK": (lambda t, self: best(t, self, 2)[0], {"router: chosen experts": "indices"}),
    "AVERAGE": (lambda t, self: average(t, self, TOKENS * 8), {}),
    "INDEX_PUT": (lambda t, self, indices, values: put(t, self, indices, values, "out"), {}),
    "INDEX_ADD": (lambda t, self, index, source: index_added(t, self, index, source, "out"), {}),
    "INDEX_COPY": (lambda t, self, index, source: index_copied(t, self, index, source, "out"), {}),
    "MASKED_SCATTER": (lambda t, self, mask, source: masked_scatter(t, self, mask, source, "out"), {}),
    "LAYER_NORM": (
        lambda t, input, weight, bias: layer_norm(t, input, weight, bias),
        {"norm: mean": "result1", "norm: 1/std": "result2"},
    ),
    "CONVOLUTION": (convolution, {}),
    "FLASH": (
        attention,
        {"attention (flash): logsumexp": "logsumexp", "attention (flash): random state": "rng_state"},
    ),
    "EFFICIENT": (
        attention,
        {
            "attention (memory-efficient): logsumexp": "log_sumexp",
            "attention (memory-efficient): random state": "philox_seed",
        },
    ),
}
UNWALKED = {
    "SCATTER",
    "NLL_LOSS",
    "LARGEST",
}  # inside a router, behind or before a softmax: the traced models hold them to the byte
MATRIX = ONE * 64
CONSTANT = {"condition": "bool", "indices": "int64", "index": "int64", "mask": "bool"}
PARAMETERS = {"GROUPED_MM": {"mat2"}, "EMBEDDING": {"weight"}, "CONVOLUTION": {"weight"}}  # booked with the model


def choices():
    for name, row in ROWS.items():
        if name not in UNWALKED:
            inputs = [each for each in row.keeps if each in arguments(name)]
            for count in range(1, len(inputs) + 1):
                for wanted in itertools.combinations(inputs, count):
                    yield pytest.param(name, row, wanted, id=f"{name}-{'+'.join(wanted)}")


def arguments(name):
    return ["self"] if name in PLAIN else list(inspect.signature(WALKED[name][0]).parameters)[1:]


def test_every_row_is_walked():
    assert ROWS.keys() == PLAIN.keys() | WALKED.keys() | UNWALKED


@pytest.mark.parametrize(("name", "row", "wanted"), list(choices()))
def test_a_node_holds_what_its_row_says(name, row, wanted):
    """Whatever gradients are wanted: nothing less, nothing more."""
    t = Tape(Ledger(), validity=Validity(Recipe()))
    given = {}
    for each in arguments(name):
        if each != "attn_bias" or name == "EFFICIENT":
            given[each] = t.new(MATRIX if name == "ADDMM" else TOKENS * 8, CONSTANT.get(each, "float16"), 8, each)
            if each in wanted:
                t.require_grad(given[each])
    walk, made = (row, {}) if name in PLAIN else WALKED[name]
    out = walk(t, given["self"], "out") if name in PLAIN else walk(t, **given)
    named = {id(tensor.storage): each for each, tensor in given.items()}
    if not (name in PLAIN and row.view):
        named |= {id(out.storage): "output" if name in ("FLASH", "EFFICIENT") else "result"}
    held = {named.get(id(storage)) or made[storage.label] for storage in out.node.saved}
    expected = {each for gradient in wanted for each in row.keeps[gradient]} - PARAMETERS.get(name, set())
    assert held == expected
