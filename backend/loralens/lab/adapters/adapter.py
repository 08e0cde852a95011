"""An adapter in memory: its config, its factor pairs and the few other tensors PEFT may store beside them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import torch

from loralens.core.errors import InputTooLarge, InvalidInput
from loralens.core.question import patterns
from loralens.lab.adapters import foreign
from loralens.lab.adapters.config import AdapterConfig
from loralens.lab.adapters.parameters import MAX_PARAMETER_PATTERNS, ParameterPart, parameter_parts
from loralens.lab.factors import PREFIX, Factors

_FIELD: Final = "adapter_model.safetensors"
MAX_PAIRS: Final = 20_000_000
TOKENS: Final = ".token_adapter.trainable_tokens_delta"
"""Rows of an embedding that were trained. Source: peft 0.21 utils/other.py, TrainableTokensWrapper."""
FACTOR: Final = re.compile(
    r"(?P<module>.+)\.(?P<role>lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_embedding_A|lora_embedding_B"
    r"|lora_magnitude_vector)(?P<new>(?<=lora_magnitude_vector)\.weight)?"
)
FACTOR_DTYPES: Final = frozenset({"F32", "F16", "BF16", torch.float32, torch.float16, torch.bfloat16})
"""Number formats of factors, as a file names them and as torch does."""
_EMBEDDINGS: Final = ("embed_tokens", "lm_head", "wte", "word_embeddings", "embed_in", "embed_out")

EMPTY: Final = (
    "saved from sharded parameters that were not gathered (DeepSpeed ZeRO-3, FSDP)",
    "gather first: model.save_pretrained(folder, state_dict=accelerator.get_state_dict(model)); numbers that were not saved are lost",
)
"""Why tensors without numbers are in a file, and what to do. Source: huggingface/peft docs/source/accelerate/deepspeed.md."""
_NO_ROLE: Final = (
    "neither a LoRA factor nor a module the config saves in full",
    "if it was trained, modules_to_save in adapter_config.json must name its module",
)


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter: `factors` by module name (without PEFT's prefix), `extra` tensors trained in full."""

    config: AdapterConfig
    factors: dict[str, Factors]
    extra: dict[str, torch.Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What was not read as it stands."""

    @property
    def copies(self) -> dict[str, torch.Tensor]:
        """Tensors of `extra` that were not trained: PEFT puts embeddings beside an adapter that targets them."""
        return {name: tensor for name, tensor in self.extra.items() if not _trained_in_full(name, self.config)}

    @property
    def parameters(self) -> int:
        """Numbers that were trained and are stored."""
        copied = sum(tensor.numel() for tensor in self.copies.values())
        return sum(f.parameters for f in self.factors.values()) + sum(t.numel() for t in self.extra.values()) - copied

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors, without the file's header."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors().values())

    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors under the names PEFT writes."""
        named = {
            f"{PREFIX}{module}.{role}": tensor
            for module, factors in self.factors.items()
            for role, tensor in factors.tensors().items()
        }
        return named | {f"{PREFIX}{name}": tensor for name, tensor in self.extra.items()}


class Spec(NamedTuple):
    """What is checked of a tensor before its numbers: shape and number format."""

    shape: tuple[int, ...]
    dtype: object


@dataclass(frozen=True, slots=True)
class Part:
    """Where one module's factors are: names of tensors, and what the config says of them."""

    module: str
    lora_a: str
    lora_b: str
    scaling: float
    is_embedding: bool
    magnitude: str | None
    bias: str | None
    experts: int = 1


@dataclass(frozen=True, slots=True)
class Layout:
    """A checked plan of an adapter: its modules in order, and (name, name without prefix) of other tensors."""

    parts: tuple[Part, ...]
    extra: tuple[tuple[str, str], ...]


def assemble(config: AdapterConfig, tensors: Mapping[str, torch.Tensor]) -> Adapter:
    """Put named tensors and a config together and check that each says what the other says.

    Raises: `InvalidInput` for numbers that are not finite, and for what `layout` refuses.
    """
    plan = layout(config, {name: Spec(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()})
    refuse_not_finite(tensors)
    return put_together(config, plan, tensors)


def refuse_not_finite(tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise `InvalidInput` with the name of the first tensor that holds NaN or infinity."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        # A NaN anywhere is both the least and the largest.
        low, high = torch.aminmax(tensor)
        if not (math.isfinite(low.item()) and math.isfinite(high.item())):
            raise _invalid(f"{name} holds numbers that are not finite (NaN or infinity)")


def put_together(config: AdapterConfig, plan: Layout, tensors: Mapping[str, torch.Tensor]) -> Adapter:
    """Build the adapter that a plan describes."""
    factors = {
        part.module: Factors(
            part.module,
            tensors[part.lora_a],
            tensors[part.lora_b],
            part.scaling,
            part.is_embedding,
            None if part.magnitude is None else tensors[part.magnitude],
            None if part.bias is None else tensors[part.bias],
            part.experts,
        )
        for part in plan.parts
    }
    return Adapter(config, factors, {short: tensors[name] for name, short in plan.extra})


def layout(config: AdapterConfig, specs: Mapping[str, Spec]) -> Layout:
    """Say which tensor is what, after checking that names, shapes and config fit each other.

    Raises: `InvalidInput` for a tensor without a role, a missing half of a pair, shapes that do not fit each other or
        the config's rank, and a module the config does not target.
    """
    empty = next((name for name, spec in specs.items() if 0 in spec.shape), None)
    if empty is not None:
        raise _invalid(f"{empty} is empty, of shape {list(specs[empty].shape)}: {EMPTY[0]}", EMPTY[1])
    roles: dict[str, dict[str, str]] = {}
    extra: list[tuple[str, str]] = []
    for name in specs:
        if not name.startswith(PREFIX):
            found = foreign.of_names(name)
            raise _invalid(
                f"{name}: PEFT's names start with {PREFIX!r}" + (f"; {found[0]}" if found else ""), found and found[1]
            )
        rest = name.removeprefix(PREFIX)
        match = FACTOR.fullmatch(rest)
        if ".modules_to_save." in rest and (found := foreign.of_names(name)):
            raise _invalid(f"{name}: {found[0]}", found[1])
        if match:
            roles.setdefault(match["module"], {})[match["role"]] = name
        elif _may_be_extra(rest, config):
            extra.append((name, rest))
        else:
            found = foreign.of_names(name)
            what, hint = found or _NO_ROLE
            raise _invalid(f"{name}: {what}", hint)
    if not roles:
        raise _invalid("the file contains no LoRA factors")
    for given, key in ((config.rank_pattern, "rank_pattern"), (config.alpha_pattern, "alpha_pattern")):
        patterns.affordable([pattern for pattern, _ in given], roles, f"adapter_config.{key}")
    targets = len(config.target_modules) + len(config.target_parameters)
    if targets * len(roles) > MAX_PAIRS:
        raise InputTooLarge(
            f"{targets} targets for {len(roles)} modules take too long to compare",
            field="adapter_config.target_modules",
        )
    if config.target_parameters and len(config.rank_pattern) + len(config.alpha_pattern) > MAX_PARAMETER_PATTERNS:
        raise InputTooLarge(
            f"{len(config.rank_pattern) + len(config.alpha_pattern)} patterns for parameters take too long to tell apart",
            field="adapter_config.target_parameters",
        )
    rows = {module: specs[own["lora_A.weight"]].shape[:1] for module, own in roles.items() if "lora_A.weight" in own}
    stacked = parameter_parts(config, {module: shape[0] for module, shape in rows.items() if shape})
    parts = tuple(_part(module, roles[module], specs, config, stacked.get(module)) for module in sorted(roles))
    return Layout(parts, tuple(extra))


def _part(
    module: str,
    roles: dict[str, str],
    specs: Mapping[str, Spec],
    config: AdapterConfig,
    parameter: ParameterPart | None,
) -> Part:
    embedding = "lora_embedding_A" in roles or "lora_embedding_B" in roles
    names = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A.weight", "lora_B.weight")
    for name in names:
        if name not in roles:
            raise _invalid(f"{module}: {name} is missing, its partner is there")
    unexpected = set(roles) - set(names) - {"lora_magnitude_vector", "lora_B.bias"}
    if unexpected:
        raise _invalid(f"{module}: {sorted(unexpected)[0]} together with {names[0]}")
    lora_a, lora_b = specs[roles[names[0]]], specs[roles[names[1]]]
    if len(lora_a.shape) != 2 or len(lora_b.shape) != 2:
        raise _invalid(
            f"{module}: factors must be matrices, got {list(lora_a.shape)} and {list(lora_b.shape)}",
            hint="adapters of convolutions are not read",
        )
    if lora_a.shape[0] != lora_b.shape[1]:
        raise _invalid(f"{module}: {names[0]} has rank {lora_a.shape[0]}, {names[1]} has rank {lora_b.shape[1]}")
    if parameter is None and lora_a.shape[0] != config.rank_of(module):
        raise _invalid(
            f"{module}: the factors have rank {lora_a.shape[0]}, the config says {config.rank_of(module)}",
            hint="r or rank_pattern in adapter_config.json does not belong to these tensors",
        )
    if lora_a.dtype not in FACTOR_DTYPES:
        raise _invalid(f"{module}: dtype {lora_a.dtype!s:.40} is not one of F32, F16, BF16")
    if lora_a.dtype != lora_b.dtype:
        raise _invalid(f"{module}: the two factors have different number formats")
    if parameter is None:
        _is_targeted(module, config)
    magnitude, bias = roles.get("lora_magnitude_vector"), roles.get("lora_B.bias")
    if (magnitude is not None) != config.use_dora:
        raise _invalid(f"{module}: lora_magnitude_vector and use_dora={config.use_dora} contradict each other")
    if (bias is not None) != config.lora_bias:
        raise _invalid(f"{module}: lora_B.bias and lora_bias={config.lora_bias} contradict each other")
    for vector, name in ((magnitude, "lora_magnitude_vector"), (bias, "lora_B.bias")):
        if vector is not None and specs[vector].shape != (lora_b.shape[0],):
            raise _invalid(f"{module}: {name} has shape {list(specs[vector].shape)}, expected [{lora_b.shape[0]}]")
    scaling = config.scaling_of(module) if parameter is None else parameter.scaling
    experts = 1 if parameter is None else parameter.experts
    return Part(module, roles[names[0]], roles[names[1]], scaling, embedding, magnitude, bias, experts)


def _is_targeted(module: str, config: AdapterConfig) -> None:
    targets, excluded = config.target_modules, config.exclude_modules
    if not isinstance(excluded, str) and patterns.ends_with_name(excluded, module):
        raise InvalidInput(
            f"{module} has factors, but exclude_modules names it: PEFT would pass over them",
            field="adapter_config.exclude_modules",
        )
    if isinstance(targets, str):
        return  # a pattern or "all-linear": which modules it means is the base model's affair
    if not patterns.ends_with_name(targets, module):
        raise InvalidInput(
            f"{module} has factors, but target_modules names only {', '.join(targets)[:200]}",
            field="adapter_config.target_modules",
        )


def targets_without_factors(adapter: Adapter) -> list[str]:
    """Names in `target_modules` that no module of the file answers to. PEFT passes over them as long as one does."""
    targets = adapter.config.target_modules
    if isinstance(targets, str):
        return []
    return [name for name in targets if not any(patterns.ends_with_name([name], module) for module in adapter.factors)]


def _trained_in_full(name: str, config: AdapterConfig) -> bool:
    """A bias that the config trains, or anything below a module that it saves: weights, buffers, single parameters."""
    parts = name.split(".")
    if len(parts) < 2:
        return False
    if name.endswith(TOKENS) and config.trains_tokens:
        return True
    if parts[-1] == "bias" and config.bias != "none":
        return True
    ends = range(1, len(parts))
    return any(patterns.ends_with_name(config.modules_to_save, ".".join(parts[:end])) for end in ends)


def _may_be_extra(name: str, config: AdapterConfig) -> bool:
    module, _, kind = name.rpartition(".")
    parts = module.split(".")
    return _trained_in_full(name, config) or (
        kind in ("weight", "bias")
        and (parts[-1] in _EMBEDDINGS or (parts[-1] == "base_layer" and len(parts) > 1 and parts[-2] in _EMBEDDINGS))
    )


def _invalid(message: str, hint: str | None = None) -> InvalidInput:
    return InvalidInput(message, field=_FIELD, hint=hint)
