"""Tensor parallelism: every matrix of a layer is cut by rows or columns, and a rank computes its heads and its neurons.

Without sequence parallelism a rank has the whole residual stream, and each matrix that is cut by its outputs sums its
input's gradient by itself; with it a rank has its part of the sequence outside of attention and MLP.

Sources: transformers 5.23 distributed/tensor_parallel.py and the families' `base_model_tp_plan`; torch 2.13 distributed/
tensor/parallel/style.py (`SequenceParallel`, `PrepareModuleInput`), loss.py (`loss_parallel`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from loralens.core.architecture.blocks import GatedMLP
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.frameworks.megatron import MegatronGPT
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import SparseMLP
from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.partition.collectives import chunked, gathered, reduced, replicated, scattered
from loralens.core.tape.parameter import Parameter

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.question.parallelism import Parallelism
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.tape import Tape

BY_OUTPUT: Final = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
BY_INPUT: Final = ("o_proj", "down_proj")
OF_ATTENTION: Final = ("q_proj", "k_proj", "v_proj", "o_proj")


def cut(root: Root, p: Parallelism) -> None:
    """Leave one rank's part of a model.

    Raises:
        UnsupportedArchitecture: a family whose layers are not the usual ones.
        InvalidInput: heads, neurons or vocabulary do not divide.
    """
    if isinstance(root, MegatronGPT) and root.task is None:
        root.share_out(p)
        return
    if not isinstance(root, CausalDecoder) or root.task is not None or root.framework or root.media:
        raise _unsupported(root)
    for _, stack in root.stacks():
        stack.remake(partial(_made, root, stack.make, p))
    _divides(root.vocabulary, p.tp, "vocabulary")
    if root.tied:
        _rows(root.embedding, p.tp)
        root.head.weight = root.embedding.weight
        root.head.out_features //= p.tp
    else:
        _outputs(root.head, p.tp)
    if p.vocabulary_parallel or root.tied:
        _cut_embedding(root, p)
    elif p.sequence_parallel:
        root.embedding.around = _chunking(p)
    root.head.around = _head(p)


def _unsupported(root: Root) -> UnsupportedArchitecture:
    return UnsupportedArchitecture(
        f"tensor parallelism is modelled for decoders of Llama's kind, not for {root.whose}",
        field="parallelism.tp",
        hint="try tp=1 with strategy=fsdp2",
    )


def _divides(size: int, parts: int, what: str) -> None:
    if size % parts:
        raise InvalidInput(
            f"{size} ({what}) does not divide into {parts} ranks",
            field="parallelism.tp",
            hint="try a smaller power of two",
        )


def _made(root: Root, make: Callable[[Any], Module], p: Parallelism, kind: Any) -> Module:
    return _layer(root, make(kind), p)


def _layer(root: Root, layer: Module, p: Parallelism) -> Module:
    attention, mlp = vars(layer).get("self_attn"), vars(layer).get("mlp")
    sparse = isinstance(mlp, SparseMLP) and mlp.shared_experts is None and p.ep > 1  # tokens travel, nothing is cut
    usual = isinstance(layer, DecoderLayer) and isinstance(attention, SelfAttention)
    usual = usual and (sparse or isinstance(mlp, GatedMLP))
    names = {name.rsplit(".", 1)[-1] for name, module in layer.walk() if isinstance(module, Linear)}
    if not usual or names != ({*OF_ATTENTION} if sparse else {*BY_OUTPUT, *BY_INPUT}):
        raise _unsupported(root)
    assert isinstance(attention, SelfAttention)
    s = attention.s
    whole = ((s.heads, "heads"), (s.kv_heads, "key-value heads"), (s.intermediate, "intermediate_size"))
    for size, what in whole[:2] if sparse else whole:
        _divides(size, p.tp, what)
    attention.s = replace(s, heads=s.heads // p.tp, kv_heads=s.kv_heads // p.tp)
    for name, module in layer.walk():
        own = name.rsplit(".", 1)[-1]
        if own in BY_OUTPUT:
            _outputs(module, p.tp)
            if not p.sequence_parallel:
                module.around = _replicating
        elif own in BY_INPUT:
            _inputs(module, p.tp)
            module.around = _scattering(p) if p.sequence_parallel else _summing
    if p.sequence_parallel:
        assert isinstance(mlp, GatedMLP)
        attention.around = mlp.around = _gathering(p)
    return layer


def _outputs(layer: Any, parts: int) -> None:
    layer.out_features //= parts
    layer.weight = Parameter((layer.out_features, layer.in_features))
    if layer.bias is not None:
        layer.bias = Parameter((layer.out_features,))


def _inputs(layer: Any, parts: int) -> None:
    layer.in_features //= parts
    layer.weight = Parameter((layer.out_features, layer.in_features))


def _cut_embedding(root: CausalDecoder, p: Parallelism) -> None:
    """A rank looks up what lies in its part of the vocabulary, and the ranks' results are summed."""
    if not root.tied:
        _rows(root.embedding, p.tp)
    if p.data_parallel == 1 and (p.sequence_parallel or not root.tied):  # until the optimizer asks for its own part
        root.embedding.parts = p.tp
    root.embedding.around = _scattering(p) if p.sequence_parallel else _summing


def _rows(embedding: Any, parts: int) -> None:
    entries, width = embedding.weight.shape
    embedding.weight = Parameter((entries // parts, width))


# -- what surrounds a module's own forward ------------------------------------------------------------------------------


Forward = Callable[..., "Tensor"]


def _summing(t: Tape, run: Forward, *arguments: Any) -> Tensor:
    """The module's result is a partial sum."""
    return reduced(t, run(t, *arguments), "layer's result")


def _replicating(t: Tape, run: Forward, x: Tensor) -> Tensor:
    """Every rank has the module's input."""
    return run(t, replicated(t, x, "layer's input"))


def _scattering(p: Parallelism) -> Callable[..., Tensor]:
    def around(t: Tape, run: Forward, *arguments: Any) -> Tensor:
        """Each rank takes its part of the sequence of the sum."""
        return scattered(t, run(t, *arguments), p.tp, "layer's result")

    return around


def _chunking(p: Parallelism) -> Callable[..., Tensor]:
    def around(t: Tape, run: Forward, *arguments: Any) -> Tensor:
        """Each rank takes its part of the sequence of what all have."""
        return chunked(t, run(t, *arguments), p.tp, "embeddings")

    return around


def _gathering(p: Parallelism) -> Callable[..., Tensor]:
    def around(t: Tape, run: Forward, x: Tensor, *arguments: Any) -> Tensor:
        """The ranks' parts of the sequence are brought together."""
        return run(t, gathered(t, x, p.tp, "layer's input"), *arguments)

    return around


def _head(p: Parallelism) -> Callable[..., Tensor]:
    def around(t: Tape, run: Forward, x: Tensor) -> Tensor:
        """Whole logits on every rank, or each rank's part of the vocabulary."""
        x = gathered(t, x, p.tp, "head's input") if p.sequence_parallel else replicated(t, x, "head's input")
        logits = run(t, x)
        return logits if p.loss_parallel else gathered(t, logits, p.tp, "logits", width=_whole(logits, p.tp))

    return around


def _whole(logits: Tensor, parts: int) -> int:
    assert isinstance(logits.width, int)
    return logits.width * parts
