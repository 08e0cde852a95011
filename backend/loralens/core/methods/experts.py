"""LoRA on mixtures of experts, whose stacked weights are no linear layers: PEFT's translation of the names people use.

Source: PEFT 0.21 utils/transformers_weight_conversion.py (`_convert_peft_config_moe`, `_resolve_string_target_modules`)
and tuners/lora/layer.py (`ParamWrapper`): every expert of a stacked weight gets factors of its own rank.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import Experts, Router
from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.methods.adapters import ends, rank_of, selector, settled
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


@dataclass(frozen=True, slots=True)
class Stacked:
    """The parameters that get factors: `turned` are PEFT's translation of names of modules, `named` are asked for themselves."""

    turned: frozenset[str] = frozenset()
    named: tuple[str, ...] = ()

    def of(self, name: str, module: Module) -> tuple[tuple[str, int], ...]:
        """A module's parameters that are adapted, each with how many times the rank its factors have.

        Gate and up together have twice the rank where two names were turned into one.
        Source: PEFT 0.21 tuners/tuners_utils.py, `_inject_parameters`.

        Raises:
            UnsupportedArchitecture: one is named that is neither a stack of experts nor a router's weight.
        """
        found: list[tuple[str, int]] = []
        if not self.turned and not self.named:
            return ()
        for own, _ in module.own_parameters():
            full = f"{name}.{own}"
            turned = ends(full, tuple(self.turned))
            if not turned and not ends(full, self.named):
                continue
            if own == "bias" or own.endswith("_bias") or not isinstance(module, (Experts, Router)):
                raise UnsupportedArchitecture(
                    f"an adapter on the parameter {full} is not modelled",
                    field="lora.target_parameters",
                    hint="name stacked experts (mlp.experts.gate_up_proj) or a router's weight here, and layers in target_modules",
                )
            found.append((own, 2 if turned and own == "gate_up_proj" else 1))
        return tuple(found)


def translate(root: Root, lora: Lora, *, listed: bool = False) -> tuple[Lora, Stacked]:
    """The targets that are still modules, and the parameters that get adapters.

    `listed`: `all-linear` is a list of the linear layers' names, as some trainers make one, and not PEFT's own word.

    Raises:
        InvalidInput: only one of two fused projections is named, or dropout, DoRA or a bias is asked for where PEFT has none.
    """
    lora, turned = _turned(root, lora, listed)
    stacked = Stacked(turned, lora.target_parameters)
    for word, asked in (("dropout", lora.dropout), ("use_dora", lora.use_dora), ("lora_bias", lora.lora_bias)):
        if asked and (turned or stacked.named):
            raise InvalidInput(
                f"PEFT has no {_NAMED[word]} for adapters on experts",
                field=f"lora.{word}",
                hint=f"{_NONE[word]}, or target attention only",
            )
    return lora, stacked


_NAMED: Final = {"dropout": "dropout", "use_dora": "DoRA", "lora_bias": "bias"}
_NONE: Final = {
    "dropout": "set dropout to 0",
    "use_dora": "switch use_dora off",
    "lora_bias": "switch lora_bias off",
}


def _turned(root: Root, lora: Lora, listed: bool) -> tuple[Lora, frozenset[str]]:
    """Without the names that PEFT turns into stacked weights, and these weights."""
    mapping = root.expert_targets
    targets = _names(root, lora, mapping, listed) if mapping else ()
    if not mapping or not targets:
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
    weights = frozenset(mapping[old] for old in mapped.values()) if has_experts(root) else frozenset()
    rest = tuple(target for target in targets if target not in mapped)
    return replace(lora, target_modules=rest), weights


def has_experts(root: Root) -> bool:
    """Are there stacked experts? A config of a family of mixtures may have none."""
    return any(isinstance(module, Experts) for _, module, _ in root.distinct())


def _names(root: Root, lora: Lora, mapping: dict[str, str], listed: bool) -> tuple[str, ...]:
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
    if everything and not listed:
        found.update(dict.fromkeys(mapping))
    return tuple(found)


@dataclass(slots=True)
class ExpertAdapter:
    """Factors of one or two stacked weights. Shapes: lora_A (experts * rank, in), lora_B (out, experts * rank)."""

    factors: dict[str, tuple[Parameter, Parameter]]

    @staticmethod
    def on(module: Module, name: str, weights: tuple[tuple[str, int], ...], lora: Lora) -> ExpertAdapter:
        """Adapters for a module's weights, each with how many times the rank its factors have."""
        factors = {}
        for own, ranks in weights:
            *experts, out, inputs = getattr(module, own).shape
            if isinstance(module, Experts) and module.transposed:
                out, inputs = inputs, out
            rank = rank_of(f"{name}.{own}", lora)
            times = (experts[0] if experts else 1) * (ranks if rank is RANK else 1)
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
        factors = [
            ops.cast(t, t.parameter(factor), w.dtype, "experts: factors in the weight's dtype")
            for factor in self.factors[own]
        ]
        if len(base.shape) > 2:  # of a stack: the parametrization holds them (PEFT's `_LoraFactorsProxy`)
            factors = [t.local(factor) for factor in factors]
        a, b = factors
        out = t.new(w.numel, w.dtype, w.width, "experts: adapted weight")
        sizes = [(x.numel, x.dtype, x.width) if x.node else None for x in (a, b)]  # a frozen factor asks for none

        def apply(g: Tensor) -> list[Tensor | None]:
            return [None, *(size and t.new(*size, "gradient: experts: factors", "temporaries") for size in sizes)]

        def costs() -> Costs:
            narrow = Cost(
                NARROW, rate_of(w.dtype), ops.multiplied(a.numel * 2, self.factors[own][1].shape[0]), bytes_of(w) * 2
            )
            return (narrow,), (narrow, narrow)

        kept = [x for x, other in ((a, b), (b, a)) if other.node]
        t.record("experts: adapted weight", [out], [w, a, b], kept, apply, costs)
        return out
