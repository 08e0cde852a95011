"""An adapter in memory: its config, its factor pairs and the few other tensors PEFT may store beside them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import torch

from loralens.core import patterns
from loralens.core.errors import InputTooLarge, InvalidInput
from loralens.lab.adapters.config import AdapterConfig

_FIELD: Final = "adapter_model.safetensors"
MAX_PAIRS: Final = 20_000_000
_PREFIX: Final = "base_model.model."
_FACTOR: Final = re.compile(
    r"(?P<module>.+)\.(?P<role>lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_embedding_A|lora_embedding_B"
    r"|lora_magnitude_vector)"
)
_EMBEDDINGS: Final = ("embed_tokens", "lm_head", "wte", "word_embeddings", "embed_in", "embed_out")


@dataclass(frozen=True, slots=True)
class Factors:
    """The low-rank pair of one module; its update is `scaling * lora_b @ lora_a`.

    Shapes: lora_a (rank, in_features), lora_b (out_features, rank); for an embedding in_features is the vocabulary.
    """

    module: str
    lora_a: torch.Tensor
    lora_b: torch.Tensor
    scaling: float
    is_embedding: bool = False
    magnitude: torch.Tensor | None = None
    bias: torch.Tensor | None = None

    @property
    def rank(self) -> int:
        """Columns of lora_b, rows of lora_a."""
        return int(self.lora_a.shape[0])

    @property
    def parameters(self) -> int:
        """Numbers stored for this module (factors, DoRA's magnitude, bias of lora_b)."""
        return sum(tensor.numel() for tensor in self.tensors().values())

    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors under PEFT's role names, without the module's name."""
        names = ("lora_embedding_A", "lora_embedding_B") if self.is_embedding else ("lora_A.weight", "lora_B.weight")
        found = {names[0]: self.lora_a, names[1]: self.lora_b}
        if self.magnitude is not None:
            found["lora_magnitude_vector"] = self.magnitude
        if self.bias is not None:
            found["lora_B.bias"] = self.bias
        return found


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter: `factors` by module name (without PEFT's prefix), `extra` tensors trained in full."""

    config: AdapterConfig
    factors: dict[str, Factors]
    extra: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Numbers the adapter stores."""
        return sum(f.parameters for f in self.factors.values()) + sum(t.numel() for t in self.extra.values())

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors, without the file's header."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors().values())

    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors under the names PEFT writes."""
        named = {
            f"{_PREFIX}{module}.{role}": tensor
            for module, factors in self.factors.items()
            for role, tensor in factors.tensors().items()
        }
        return named | {f"{_PREFIX}{name}": tensor for name, tensor in self.extra.items()}


def assemble(config: AdapterConfig, tensors: Mapping[str, torch.Tensor], *, finite: bool = False) -> Adapter:
    """Put named tensors and a config together and check that each says what the other says.

    `finite` says that the caller has made sure of it for all numbers.

    Raises: `InvalidInput` for a tensor without a role, a missing half of a pair, shapes that do not fit each other or
        the config's rank, a module the config does not target, and numbers that are not finite.
    """
    roles: dict[str, dict[str, torch.Tensor]] = {}
    extra: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if not name.startswith(_PREFIX):
            raise _invalid(f"{name}: PEFT's names start with {_PREFIX!r}")
        if not finite and not _all_finite(tensor):
            raise _invalid(f"{name} holds numbers that are not finite (NaN or infinity)")
        rest = name.removeprefix(_PREFIX)
        match = _FACTOR.fullmatch(rest)
        if match:
            roles.setdefault(match["module"], {})[match["role"]] = tensor
        elif _may_be_extra(rest, config):
            extra[rest] = tensor
        else:
            raise _invalid(f"{name}: neither a LoRA factor nor a module the config saves in full")
    if not roles:
        raise _invalid("the file holds no LoRA factors")
    for given, key in ((config.rank_pattern, "rank_pattern"), (config.alpha_pattern, "alpha_pattern")):
        patterns.affordable([pattern for pattern, _ in given], roles, f"adapter_config.{key}")
    if len(config.target_modules) * len(roles) > MAX_PAIRS:
        raise InputTooLarge(
            f"{len(config.target_modules)} targets for {len(roles)} modules take too long to compare",
            field="adapter_config.target_modules",
        )
    factors = {module: _factors(module, roles[module], config) for module in sorted(roles)}
    _every_target_is_there(config, factors)
    return Adapter(config, factors, extra)


def _all_finite(tensor: torch.Tensor) -> bool:
    # A NaN anywhere is both the least and the largest; twenty times as fast as isfinite().all() on 16-bit numbers.
    low, high = torch.aminmax(tensor)
    return math.isfinite(low.item()) and math.isfinite(high.item())


def _factors(module: str, roles: dict[str, torch.Tensor], config: AdapterConfig) -> Factors:
    embedding = "lora_embedding_A" in roles or "lora_embedding_B" in roles
    names = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A.weight", "lora_B.weight")
    for name in names:
        if name not in roles:
            raise _invalid(f"{module}: {name} is missing, its partner is there")
    unexpected = set(roles) - set(names) - {"lora_magnitude_vector", "lora_B.bias"}
    if unexpected:
        raise _invalid(f"{module}: {sorted(unexpected)[0]} beside {names[0]}")
    lora_a, lora_b = roles[names[0]], roles[names[1]]
    if lora_a.dim() != 2 or lora_b.dim() != 2:
        raise _invalid(
            f"{module}: factors must be matrices, got {list(lora_a.shape)} and {list(lora_b.shape)}",
            hint="adapters of convolutions are not read",
        )
    if lora_a.shape[0] != lora_b.shape[1]:
        raise _invalid(f"{module}: {names[0]} has rank {lora_a.shape[0]}, {names[1]} has rank {lora_b.shape[1]}")
    if lora_a.shape[0] != config.rank_of(module):
        raise _invalid(
            f"{module}: the factors have rank {lora_a.shape[0]}, the config says {config.rank_of(module)}",
            hint="r or rank_pattern in adapter_config.json does not belong to these tensors",
        )
    if lora_a.dtype != lora_b.dtype:
        raise _invalid(f"{module}: the two factors have different number formats")
    _is_targeted(module, config)
    magnitude, bias = roles.get("lora_magnitude_vector"), roles.get("lora_B.bias")
    if (magnitude is not None) != config.use_dora:
        raise _invalid(f"{module}: lora_magnitude_vector and use_dora={config.use_dora} contradict each other")
    if (bias is not None) != config.lora_bias:
        raise _invalid(f"{module}: lora_B.bias and lora_bias={config.lora_bias} contradict each other")
    for vector, name in ((magnitude, "lora_magnitude_vector"), (bias, "lora_B.bias")):
        if vector is not None and vector.shape != (lora_b.shape[0],):
            raise _invalid(f"{module}: {name} has shape {list(vector.shape)}, expected [{lora_b.shape[0]}]")
    return Factors(module, lora_a, lora_b, config.scaling_of(module), embedding, magnitude, bias)


def _is_targeted(module: str, config: AdapterConfig) -> None:
    targets = config.target_modules
    if isinstance(targets, str):
        return  # a pattern or "all-linear": which modules it means is the base model's affair
    if not patterns.ends_with_name(targets, module):
        raise InvalidInput(
            f"{module} has factors, but target_modules names only {', '.join(targets)[:200]}",
            field="adapter_config.target_modules",
        )


def _every_target_is_there(config: AdapterConfig, factors: Mapping[str, Factors]) -> None:
    if isinstance(config.target_modules, str):
        return
    for target in config.target_modules:
        if not any(patterns.ends_with_name([target], module) for module in factors):
            raise InvalidInput(
                f"target_modules names {target[:80]!r}, but the file holds no factors for it",
                field="adapter_config.target_modules",
            )


def _may_be_extra(name: str, config: AdapterConfig) -> bool:
    module, _, kind = name.rpartition(".")
    if kind not in ("weight", "bias") or not module:
        return False
    if kind == "bias" and config.bias != "none":
        return True
    parts = module.split(".")
    return (
        any(patterns.ends_with_name(config.modules_to_save, ".".join(parts[: end + 1])) for end in range(len(parts)))
        or parts[-1] in _EMBEDDINGS
        or (parts[-1] == "base_layer" and len(parts) > 1 and parts[-2] in _EMBEDDINGS)
    )


def _invalid(message: str, hint: str | None = None) -> InvalidInput:
    return InvalidInput(message, field=_FIELD, hint=hint)
