"""What torch.compile's own partitioner keeps for backward: of a compiled loss, and of a layer under selective checkpointing."""

from __future__ import annotations

from functools import partial

import pytest

pytest.importorskip("torch")

import torch
from functorch.compile import make_boxed_func, min_cut_rematerialization_partition
from torch._dynamo.backends.common import aot_autograd
from torch._inductor.decomposition import select_decomp_table
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from loralens.core.answer.estimate import estimate
from loralens.lab.trace.selective import selective


def kept_by_compiler(run, *inputs):
    """Shapes and dtypes that the compiled forward hands to backward, parameters and inputs left out."""
    found = []

    def backward(graph, given):
        found.extend(tuple(node.meta["val"].shape) for node in graph.graph.nodes if node.op == "placeholder")
        return make_boxed_func(graph.forward)

    backend = aot_autograd(
        fw_compiler=lambda graph, _: make_boxed_func(graph.forward),
        bw_compiler=backward,
        partition_fn=min_cut_rematerialization_partition,
        decompositions=select_decomp_table(),
    )
    torch.compile(run, backend=backend)(*inputs).sum().backward()
    return found


def test_a_compiled_loss_keeps_its_16_bit_logits_and_two_numbers_a_row():
    logits = torch.randn(1, 64, 1000, dtype=torch.bfloat16, requires_grad=True)
    labels = torch.randint(0, 1000, (1, 64))

    def loss(logits, labels):
        return functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(0, 1))

    kept = kept_by_compiler(loss, logits, labels)
    assert sorted(shape for shape in kept if shape) == [(1, 64), (1, 64, 1000), (64, 1), (64, 1)]
    whole, compiled = (estimate("llama-3.1-8b", "full", loss=loss, autocast=None) for loss in ("full", "compiled"))
    assert whole.phases["forward"] - compiled.phases["forward"] == pytest.approx(2 * 2048 * 128_256 * 4, rel=1e-4)


@pytest.mark.parametrize("compiled", [True, False])
def test_a_compiled_layer_saves_no_result_that_backward_does_not_read(compiled):
    """Products one and three of a gated MLP are saved, and the third, which is its result, only by eager torch."""
    gate, up, down = (torch.randn(*shape, requires_grad=True) for shape in ((8, 24), (8, 24), (24, 8)))
    x = torch.randn(16, 8, requires_grad=True)

    def mlp(x):
        return x + (functional.silu(x @ gate) * (x @ up)) @ down

    run = partial(checkpoint, mlp, use_reentrant=False, context_fn=selective)
    if compiled:
        kept = kept_by_compiler(run, x)
        assert kept.count((16, 24)) == 1 and kept.count((16, 8)) == 2  # the first product; the input and the tangent
    words = {"gradient_checkpointing": True, "checkpoint_saves": "ops", "compile": compiled, "autocast": None}
    found, plain = (
        estimate("llama-3.1-8b", "full", **{**words, "checkpoint_saves": saves}) for saves in ("ops", "inputs")
    )
    tokens, item = 2048, 2
    results = 4096 + 1024 + 4096 + 14336 + (0 if compiled else 4096)  # query, value, attention, gate, and down's
    statistics = 32 * 4 * tokens + 3 * 8
    assert found.phases["forward"] - plain.phases["forward"] == 32 * (results * tokens * item + statistics)
