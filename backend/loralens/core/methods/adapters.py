"""LoRA on one linear layer: which layers receive an adapter, its parameters, and the ops it adds.

Source: Hu et al. 2021, arXiv:2106.09685, section 4.1; PEFT 0.21 `LoraConfig` and `tuners/lora/layer.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.module import Embedding, Linear, Module
from loralens.core.errors import InvalidInput
from loralens.core.methods.packing import packed_costs
from loralens.core.question import patterns
from loralens.core.tape import ops
from loralens.core.tape.cost import NARROW, Cost, Costs, moving, rate_of
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import ONE, RANK, Dim
from loralens.core.tape.work import bytes_of, product

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.question.recipe import Lora
    from loralens.core.tape.tape import Tape


# Model types for which PEFT chooses target modules itself, the same ones as `Root.default_targets`; for others it raises.
# Source: PEFT 0.21.2 utils/constants.py, TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.
PEFT_DEFAULTS: Final = frozenset({
    "t5", "mt5", "gpt2", "bloom", "chatglm", "opt", "gptj", "gpt_neox", "bert", "roberta", "xlm-roberta", "llama", "llama4",
    "gpt_bigcode", "falcon", "mistral", "mixtral", "stablelm", "phi", "gemma", "gemma2", "gemma3_text", "qwen2",
    "qwen3", "nemotron_h", "rwkv", "mpt", "codegen", "gpt_neo", "deberta", "deberta-v2", "bart", "layoutlm", "electra",
})  # fmt: skip


def settled(root: Root, lora: Lora) -> Lora:
    """The configuration with the family's usual target modules named, where nothing is asked for."""
    named = lora.target_modules is not None or lora.target_parameters
    return lora if named else replace(lora, target_modules=_usual(root))


def _usual(root: Root) -> tuple[str, ...] | str:
    """The family's; of the language model alone where a tower has layers of these names that PEFT refuses."""
    usual = root.default_targets
    wrapped = isinstance(usual, tuple) and any(module.wraps for _, module, _ in root.distinct())
    return rf".*language_model.*\.({'|'.join(usual)})" if wrapped else usual


def refuse_wrapped(root: Root, lora: Lora) -> None:
    """Source: PEFT 0.21 tuners/lora/model.py, `_create_new_module`: "Target module … is not supported".

    Raises: `InvalidInput`: a name means a layer inside a class that PEFT does not know.
    """
    targets = lora.target_modules
    if targets is None or targets == "all-linear" or not any(module.wraps for _, module, _ in root.distinct()):
        return
    found = (
        patterns.whole(targets, "lora.target_modules") if isinstance(targets, str) else lambda name: ends(name, targets)
    )
    excluded = _excluded(root, lora)
    for name, module in root.walk():
        if module.wraps and found(name) and not excluded(name):
            own = name.rsplit(".", 1)[-1]
            raise InvalidInput(
                f"PEFT refuses {own} in this model: in its tower it is a {module.wraps}",
                field="lora.target_modules",
                hint=rf"name the language model's by a regular expression, .*language_model.*\.({own}), or take all-linear",
            )


def selector(root: Root, lora: Lora, *, listed: bool = False) -> Callable[[str, Module], bool]:
    """Does this module receive an adapter? PEFT's own meaning of `target_modules`, `exclude_modules`, `layers_to_transform`.

    A list names modules by their full name or by its end; a text is a regular expression for the whole name;
    `all-linear` means every linear layer except the head, if transformers knows it as one, or if a trainer lists the
    layers itself (`listed`). A layer's number is the first that stands behind two names.
    Source: PEFT 0.21 `tuners/tuners_utils.py`, `check_target_module_exists` and `_maybe_include_all_linear_layers`;
    `tuners/lora/config.py`, `LoraConfig.__post_init__`.

    Raises:
        InvalidInput: `layers_to_transform` with a text for targets, which PEFT refuses.
    """
    targets = settled(root, lora).target_modules or ()
    if lora.layers_to_transform is not None and isinstance(targets, str):
        raise InvalidInput(
            "PEFT refuses layers_to_transform where target_modules is a text",
            field="lora.layers_to_transform",
            hint="name the layers in a list: target_modules=q_proj,v_proj",
        )
    wanted, excluded = _targeted(root, lora, targets, root.adapts_head and not listed), _excluded(root, lora)
    layers = None if lora.layers_to_transform is None else frozenset(lora.layers_to_transform)

    def chosen(name: str, module: Module) -> bool:
        return wanted(name, module) and not excluded(name) and (layers is None or _layer(name) in layers)

    return chosen


def _layer(name: str) -> int | None:
    """The number of the layer that a module is in."""
    found = re.match(r".*?\.[^.]*\.(\d+)\.", name)
    return None if found is None else int(found[1])


def _excluded(root: Root, lora: Lora) -> Callable[[str], bool]:
    keys = lora.exclude_modules
    if keys is None:
        return lambda name: False
    if isinstance(keys, str):
        pattern = patterns.whole(keys, "lora.exclude_modules")
        patterns.affordable([keys], _names(root), "lora.exclude_modules")
        return pattern
    return lambda name: ends(name, keys)


def _targeted(root: Root, lora: Lora, targets: tuple[str, ...] | str, with_head: bool) -> Callable[[str, Module], bool]:
    saved = lora.modules_to_save
    adaptable = (Linear, Embedding)
    if targets == "all-linear":
        return lambda name, module: (
            isinstance(module, Linear) and (with_head or not root.is_head(module)) and not ends(name, saved)
        )
    if isinstance(targets, str):
        pattern = patterns.whole(targets, "lora.target_modules")
        patterns.affordable([targets], _names(root), "lora.target_modules")
        return lambda name, module: isinstance(module, adaptable) and pattern(name)
    return lambda name, module: isinstance(module, adaptable) and ends(name, targets) and not ends(name, saved)


def _names(root: Root) -> list[str]:
    return [name for name, _ in root.walk()]


def ends(name: str, keys: tuple[str, ...]) -> bool:
    """Is the name one of the keys, or does it end in `.key`?"""
    return any(name == key or name.endswith("." + key) for key in keys)


def rank_of(name: str, lora: Lora) -> Dim:
    """The adapter's rank on a module: the variable `RANK`, or a number from `rank_pattern`.

    Source: PEFT `get_pattern_key`: a key matches a name's end, as a regular expression.
    """
    if not lora.rank_pattern:
        return RANK
    found = patterns.first_match(lora.rank_pattern, name, "lora.rank_pattern")
    return RANK if found is None else found


@dataclass(slots=True)
class LoraAdapter:
    """`W x + scaling * B A x`. Shapes: lora_a (rank, in_features), lora_b (out_features, rank)."""

    lora_a: Parameter
    lora_b: Parameter
    dropout: float
    bias: Parameter | None = None  # of lora_b

    @staticmethod
    def on(layer: Linear, name: str, lora: Lora) -> LoraAdapter:
        """An adapter for `layer` of full name `name`."""
        if lora.lora_bias and lora.use_dora:
            raise InvalidInput(
                "PEFT refuses lora_bias with use_dora", field="lora.lora_bias", hint="switch one of the two off"
            )
        rank = rank_of(name, lora)
        a = Parameter((rank, layer.in_features), role="adapter")
        b = Parameter((layer.out_features, rank), role="adapter")
        for parameter in (a, b):
            parameter.dtype = lora.adapter_dtype
        bias = Parameter((layer.out_features,), role="adapter") if lora.lora_bias else None
        if bias is not None:
            bias.dtype = lora.adapter_dtype
        return LoraAdapter(a, b, lora.dropout, bias)

    def parameters(self) -> dict[str, Parameter]:
        """lora_A and lora_B."""
        found = {"lora_A.weight": self.lora_a, "lora_B.weight": self.lora_b}
        return found if self.bias is None else {**found, "lora_B.bias": self.bias}

    def forward(self, t: Tape, layer: Linear, x: Tensor) -> Tensor:
        """PEFT's forward, with its casts."""
        if t.kernels.fused_lora:
            return self._fused(t, layer, x)
        if layer.weight.packing is not None:
            return self._on_packed(t, layer, x)
        result = layer.base(t, x)
        dtype = result.dtype
        x = ops.cast(t, x, self.lora_a.dtype, "LoRA: input cast to the adapter's dtype")
        result = ops.add(t, result, self.update(t, x), "LoRA: base plus update")
        return ops.cast(t, result, dtype, "LoRA: result cast back")

    def _fused(self, t: Tape, layer: Linear, x: Tensor) -> Tensor:
        """Base and update in one autograd function that keeps its input, before and after dropout, and casts the adapter inside.

        Neither a mask nor a cached copy of the adapter is kept: what dropout took is zero in what is left.
        Source: Unsloth kernels/fast_lora.py (`LoRA_W`, `LoRA_QKV`, without dropout); with it FMS acceleration
        plugins/fused-ops-and-kernels fused_ops/unsloth_lora/bnb/fast_lora.py (`ctx.save_for_backward(..., X, *_dropped_X)`).
        """
        inside, t.grad_enabled = t.grad_enabled, False
        if t.autocast is not None:
            x = ops.cast(t, x, t.autocast, "LoRA: input cast by autocast")
        out = layer.base(t, x)
        t.grad_enabled = inside
        factors = [t.parameter(factor) for factor in (self.lora_a, self.lora_b)]
        copies = [ops.cast(t, Tensor(None, f.numel, f.dtype, f.width), out.dtype, "LoRA: factor cast") for f in factors]
        update = t.new(out.numel, out.dtype, out.width, "LoRA: B A x")  # added to the base product in place
        t.end(update, *reversed(copies))
        dropped = x
        if self.dropout:
            dropped = t.new(x.numel, x.dtype, x.width, "LoRA: dropout")
        packed = layer.weight.packing is not None
        sizes = [(f.numel, f.dtype, f.width) for f in factors]
        source, wide, compute = (x.numel, x.dtype, x.width), layer.weight.numel, out.dtype
        wants = x.node is not None

        def apply(g: Tensor) -> list[Tensor | None]:
            gradients: list[Tensor | None] = [t.new(*size, "gradient: LoRA factor", "temporaries") for size in sizes]
            if not wants:
                return [None, *gradients]
            whole = (
                t.new(wide, compute, layer.in_features, "LoRA: weight unpacked for backward", "temporaries")
                if packed
                else None
            )
            gradient = t.new(*source, f"gradient: {layer.label} input", "temporaries")
            t.end(whole)
            return [gradient, *gradients]

        t.record("LoRA (fused)", [out], [x, *factors], [x, dropped], apply, lambda: self._fused_costs(layer, x, out))
        return out

    def _fused_costs(self, layer: Linear, x: Tensor, out: Tensor) -> Costs:
        """Beside the base product: two narrow products, and four in backward with the gradient of the input."""
        rows = ops.divide(x.numel, x.width)
        narrow = [
            Cost(NARROW, rate_of(out.dtype), rows.times(factor.numel) * 2, bytes_of(wide))
            for factor, wide in ((self.lora_a, x), (self.lora_b, out))
        ]
        if layer.weight.packing is not None:
            base = packed_costs(layer, x, out, out.dtype)[1]
        else:
            weight = Tensor(None, layer.weight.numel, layer.weight.dtype, layer.in_features)
            flops = rows.times(layer.weight.numel) * 2
            base = product(out, x, weight, flops, (True, False))[1]
        return (*narrow, moving(bytes_of(out) * 3)), (*(base or ()), *narrow, *narrow)

    def _on_packed(self, t: Tape, layer: Linear, x: Tensor) -> Tensor:
        result = ops.copy(t, layer.base(t, x), "LoRA: base result, cloned")
        dtype = result.dtype
        if t.autocast is None:
            x = ops.cast(t, x, self.lora_a.dtype, "LoRA: input cast to the adapter's dtype")
        output = self.update(t, x)
        if t.autocast is None:
            output = ops.cast(t, output, dtype, "LoRA: update cast back")
        return ops.add(t, result, output, "LoRA: base plus update")

    def update(self, t: Tape, x: Tensor) -> Tensor:
        """`lora_B(lora_A(dropout(x))) * scaling`."""
        return ops.scale(
            t,
            ops.linear(
                t,
                ops.linear(t, ops.dropout(t, x, self.dropout, "LoRA: dropout"), self.lora_a, "LoRA: A x"),
                self.lora_b,
                "LoRA: B A x",
                self.bias,
            ),
            "LoRA: scaled update",
        )


@dataclass(slots=True)
class DoraAdapter(LoraAdapter):
    """DoRA: the update's direction by LoRA, its length per output row by a trained magnitude.

    Source: Liu et al. 2024, arXiv:2402.09353, equation 5; PEFT 0.21 `tuners/lora/dora.py`: with dropout the base product is
    made again on the dropped-out input, and the whole weight is materialised in the input's dtype to take its norm.
    """

    magnitude: Parameter = field(default_factory=lambda: Parameter((1,)))

    @staticmethod
    def on(layer: Linear, name: str, lora: Lora) -> DoraAdapter:
        """An adapter for `layer` of full name `name`."""
        plain = LoraAdapter.on(layer, name, lora)
        magnitude = Parameter((layer.out_features,), role="adapter")
        magnitude.dtype = lora.adapter_dtype
        return DoraAdapter(plain.lora_a, plain.lora_b, plain.dropout, magnitude=magnitude)

    def parameters(self) -> dict[str, Parameter]:
        """lora_A, lora_B and the magnitude vector."""
        return {**LoraAdapter.parameters(self), "lora_magnitude_vector.weight": self.magnitude}

    def forward(self, t: Tape, layer: Linear, x: Tensor) -> Tensor:
        """PEFT's forward, with its casts."""
        result = layer.base(t, x)
        packed = layer.weight.packing is not None
        if packed:
            result = ops.copy(t, result, "LoRA: base result, cloned")
        dtype = result.dtype
        if not packed or t.autocast is None:
            x = ops.cast(t, x, self.lora_a.dtype, "LoRA: input cast to the adapter's dtype")
        base = result if self.dropout == 0 else None
        dropped = ops.dropout(t, x, self.dropout, "LoRA: dropout")  # x stays a local variable of the layer's forward
        result = ops.add(t, result, self._turned(t, layer, dropped, base), "LoRA: base plus update")
        return ops.cast(t, result, dtype, "LoRA: result cast back")

    def _turned(self, t: Tape, layer: Linear, x: Tensor, base: Tensor | None) -> Tensor:
        scale, weight, product = self._scale(t, layer, x.dtype)
        update = ops.linear(t, ops.linear(t, x, self.lora_a, "LoRA: A x"), self.lora_b, "LoRA: B A x")
        if base is None:
            base = ops.linear(t, x, None, "DoRA: base product on the dropped-out input", weight=weight)
        elif layer.bias is not None:
            base = ops.sub(t, base, t.parameter(layer.bias), "DoRA: base product without bias")
        minus = ops.scale(t, scale, "DoRA: scale - 1")
        first = ops.mul(t, base, minus, "DoRA: (scale - 1) * base")
        second = ops.scale(t, ops.mul(t, update, scale, "DoRA: scale * update"), "DoRA: scaled update")
        out = ops.add(t, first, second, "DoRA: update")
        t.end(weight, product)
        return out

    def _scale(self, t: Tape, layer: Linear, dtype: str) -> tuple[Tensor, Tensor, Tensor]:
        """magnitude / |W + scaling B A| per row, the whole weight and B A; the norm is a constant for autograd."""
        shape = layer.in_features * layer.out_features
        product = ops.cast(t, self._product(t, layer), dtype, "DoRA: B A in the input's dtype")
        weight = (
            t.new(ONE * shape, layer_dtype(layer), layer.in_features, "DoRA: weight")
            if layer.weight.packing
            else Tensor(None, ONE * shape, layer_dtype(layer), layer.in_features)
        )
        weight = ops.cast(t, weight, dtype, "DoRA: weight in the input's dtype")
        with t.temporary(product.numel, dtype, layer.in_features, "DoRA: scaled B A"):
            total = t.new(product.numel, dtype, layer.in_features, "DoRA: W + scaled B A")
        norm = t.new(
            ONE * layer.out_features, "float32" if t.autocast else dtype, layer.out_features, "DoRA: norms of the rows"
        )
        norm = ops.cast(t, norm, dtype, "DoRA: norms of the rows")
        t.end(total)
        return self._divide(t, norm), weight, product

    def _product(self, t: Tape, layer: Linear) -> Tensor:
        eye = t.new(
            ONE * (layer.in_features * layer.in_features), self.lora_a.dtype, layer.in_features, "DoRA: identity matrix"
        )
        return ops.linear(t, ops.linear(t, eye, self.lora_a, "DoRA: A"), self.lora_b, "DoRA: B A")

    def _divide(self, t: Tape, norm: Tensor) -> Tensor:
        magnitude = t.parameter(self.magnitude)
        scale = t.new(magnitude.numel, magnitude.dtype, magnitude.width, "DoRA: scale")
        size = (magnitude.numel, magnitude.dtype, magnitude.width)
        t.record(
            "DoRA: scale",
            [scale],
            [magnitude],
            [norm],
            lambda g: t.new(*size, "gradient: DoRA magnitude", "temporaries"),
        )
        return scale


def layer_dtype(layer: Linear) -> str:
    """The dtype in which a layer's whole weight is seen: its own, or its packing's compute dtype."""
    packing = layer.weight.packing
    return str(getattr(packing, "compute_dtype", layer.weight.dtype)) if packing else layer.weight.dtype
