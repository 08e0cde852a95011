"""LoRA on mixtures of experts, whose stacked weights are no linear layers: PEFT's translation of the names people use.

Source: PEFT 0.21 utils/transformers_weight_conversion.py (`_convert_peft_config_moe`, `_resolve_string_target_modules`)
and tuners/lora/layer.py (`ParamWrapper`): every expert of a stacked weight gets factors of its own rank.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import Experts, Router
from loralens.core.errors import InvalidInput
from loralens.core.methods.adapters import rank_of, selector, settled
from loralens.core.tape import ops
from loralens.core.tape.cost import NARROW, Cost, Costs, rate_of
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import RANK, Dim
from loralens.core.tape.work import bytes_of

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.question.recipe import Lora
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.tape import Tape


def translate(root: Root, lora: Lora) -> tuple[Lora, frozenset[str]]:
    """The targets that are still modules, and the stacked weights that PEFT adapts instead of the rest.

    Raises:
        InvalidInput: only one of two fused projections is named, or dropout or DoRA is asked for where PEFT has none.
    """
    mapping = root.expert_targets
    if not mapping:
        return lora, frozenset()
    targets = _names(root, lora, mapping)
    if not targets:
        return lora, frozenset()
    mapped = {target: old for target in targets for old in mapping if target == old or target.endswith("." + old)}
    fused = {old for old, new in mapping.items() if new == "gate_up_proj"}
    named = fused & set(mapped.values())
    if named and named != fused:
        raise InvalidInput(
            f"{', '.join(sorted(named))} cannot be adapted alone: it is fused with {', '.join(sorted(fused - named))} in this family",
            field="lora.target_modules",
            hint=f"name {', '.join(sorted(fused))} together",
        )
    present = any(isinstance(module, Experts) for _, module, _ in root.distinct())  # a config may have none
    weights = frozenset(mapping[old] for old in mapped.values()) if present else frozenset()
    if weights and lora.dropout:
        raise InvalidInput(
            "PEFT has no dropout for adapters on experts",
            field="lora.dropout",
            hint="set dropout to 0, or target attention only",
        )
    if weights and lora.use_dora:
        raise InvalidInput(
            "PEFT has no DoRA for adapters on experts",
            field="lora.use_dora",
            hint="switch use_dora off, or target attention only",
        )
    rest = tuple(target for target in targets if target not in mapped)
    return replace(lora, target_modules=rest), weights


def _names(root: Root, lora: Lora, mapping: dict[str, str]) -> tuple[str, ...]:
    targets = settled(root, lora).target_modules or ()
    if not isinstance(targets, str):
        return tuple(targets)
    wanted = selector(root, lora)
    found: dict[str, None] = {}
    everything = targets == "all-linear"
    for name, module in root.walk():
        matches = (
            wanted(name, module)
            if everything or isinstance(module, Linear)
            else re.fullmatch(targets, name) is not None
        )
        keys = [name] if matches else []
        if not everything:
            keys += [f"{name}.{own}" for own, _ in module.own_parameters() if re.fullmatch(targets, f"{name}.{own}")]
            if isinstance(module, Experts):
                keys += [f"{name}.{old}" for old in mapping if re.fullmatch(targets, f"{name}.{old}")]
        found.update({key.rsplit(".", 1)[-1]: None for key in keys})
    if everything:
        found.update(dict.fromkeys(mapping))
    return tuple(found)


def targeted(module: Module, weights: frozenset[str]) -> tuple[str, ...]:
    """The weights of a module that are adapted."""
    if isinstance(module, Router):
        return ("weight",) if "gate.weight" in weights else ()
    if isinstance(module, Experts):
        return tuple(name for name in ("gate_up_proj", "down_proj") if name in weights)
    return ()


@dataclass(slots=True)
class ExpertAdapter:
    """Factors of one or two stacked weights. Shapes: lora_A (experts * rank, in), lora_B (out, experts * rank)."""

    factors: dict[str, tuple[Parameter, Parameter]]

    @staticmethod
    def on(module: Module, name: str, weights: tuple[str, ...], lora: Lora) -> ExpertAdapter:
        """Adapters for a module's weights; gate and up together have twice the rank."""
        factors = {}
        for own in weights:
            *experts, out, inputs = getattr(module, own).shape
            rank = rank_of(f"{name}.{own}", lora)
            times = (experts[0] if experts else 1) * (2 if own == "gate_up_proj" and rank is RANK else 1)
            width: Dim = rank * times
            pair = Parameter((width, inputs), role="adapter"), Parameter((out, width), role="adapter")
            for parameter in pair:
                parameter.dtype = lora.adapter_dtype
            factors[own] = pair
        return ExpertAdapter(factors)

    def parameters(self) -> dict[str, Parameter]:
        """All factors by name."""
        return {
            f"{own}.lora_{side}.weight": pair[index]
            for own, pair in self.factors.items()
            for index, side in enumerate("AB")
        }

    def weight(self, t: Tape, own: str, base: Parameter) -> Tensor:
        """`W + scaling * B A` as a whole new weight, which the experts run on and backward holds."""
        w = t.parameter(base)
        if own not in self.factors:
            return w
        a, b = (
            ops.cast(t, t.parameter(factor), w.dtype, "experts: factors in the weight's dtype")
            for factor in self.factors[own]
        )
        out = t.new(w.numel, w.dtype, w.width, "experts: adapted weight")
        sizes = [(x.numel, x.dtype, x.width) for x in (a, b)]

        def apply(g: Tensor) -> list[Tensor | None]:
            return [None, *(t.new(*size, "gradient: experts: factors", "temporaries") for size in sizes)]

        def costs() -> Costs:
            narrow = Cost(NARROW, rate_of(w.dtype), ops.multiplied(a.numel * 2, base.shape[-2]), bytes_of(w) * 2)
            return (narrow,), (narrow, narrow)

        t.record("experts: adapted weight", [out], [w, a, b], [a, b], apply, costs)
        return out
