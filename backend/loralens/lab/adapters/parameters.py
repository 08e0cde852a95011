"""Factors of parameters that no module of their own has (PEFT's `target_parameters`): which are so, their rank and experts.

A module's wrapped parameters are nested: the outermost factors stand under the module's own name, the next ones under
`.base_layer` of it. Which parameter is where does not stand in the file, nor how many experts a parameter stacks; both
matter where rank_pattern or alpha_pattern tell parameters apart, and then follow only if a single reading fits.
Source: huggingface/peft 0.21.2 tuners/tuners_utils.py, _inject_parameters; tuners/lora/layer.py, ParamWrapper.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from itertools import permutations
from typing import Final, NamedTuple

from loralens.core.errors import InvalidInput
from loralens.core.question import patterns
from loralens.lab.adapters.config import AdapterConfig

_NESTED: Final = ".base_layer"
MAX_NAMES_APART: Final = 4
MAX_PARAMETER_PATTERNS: Final = 64
"""Parameters of one module, and patterns, that are told apart: each order of the former is tried with the latter."""


class ParameterPart(NamedTuple):
    """What the config says of a pair of factors: the rank of one expert, the scaling, and how many experts there are."""

    rank: int
    scaling: float
    experts: int


def parameter_parts(config: AdapterConfig, rows: Mapping[str, int]) -> dict[str, ParameterPart]:
    """The pairs that are of parameters, by module name; `rows` are the rows of every module's lora_A.

    Raises: `InvalidInput` where no reading of the config fits the rows, or several do.
    """
    if not config.target_parameters:
        return {}
    nested: dict[str, list[str]] = defaultdict(list)
    for module in sorted(rows, key=len):  # the outermost first
        if _is_parameter(module, rows[module], config):
            nested[without_nesting(module)].append(module)
    return {
        level: part
        for module, levels in nested.items()
        for level, part in zip(levels, _read(module, [rows[level] for level in levels], config), strict=True)
    }


def without_nesting(module: str) -> str:
    """The module's name in the model.

    >>> without_nesting("model.layers.0.mlp.experts.base_layer")
    'model.layers.0.mlp.experts'
    """
    return module.replace(_NESTED, "")


def _is_parameter(module: str, rows: int, config: AdapterConfig) -> bool:
    if module != without_nesting(module) or any(
        _below(name, module) and "." in name for name in config.target_parameters
    ):
        return True
    if isinstance(config.target_modules, str):
        return rows != config.rank_of(module)
    return not patterns.ends_with_name(config.target_modules, module)


def _below(parameter: str, module: str) -> bool:
    """Whether the parameter of a target can be the module's own."""
    parent = parameter.rpartition(".")[0]
    return not parent or module == parent or module.endswith(f".{parent}")


def _read(module: str, rows: list[int], config: AdapterConfig) -> tuple[ParameterPart, ...]:
    """Each level's part. Raises: `InvalidInput`."""
    names = sorted({name.rpartition(".")[2] for name in config.target_parameters if _below(name, module)})
    if not config.rank_pattern and not config.alpha_pattern:
        names = names[: len(rows)]  # they are all alike
    elif len(names) > MAX_NAMES_APART:
        raise InvalidInput(
            f"{module}: {len(names)} parameters are too many to tell apart", field="adapter_config.target_parameters"
        )
    readings = set()
    for chosen in permutations(names, len(rows)) if len(rows) <= MAX_NAMES_APART else ():
        keys = [f"{module}.{name}" for name in chosen]
        ranks = [config.rank_of(key) for key in keys]
        experts = {count / rank for count, rank in zip(rows, ranks, strict=True)}
        if len(experts) == 1 and (count := experts.pop()).is_integer() and count >= 1:
            parts = zip(ranks, map(config.scaling_of, keys), strict=True)
            readings.add(tuple(ParameterPart(rank, scaling, int(count)) for rank, scaling in parts))
    if len(readings) == 1:
        return readings.pop()
    said = f"target_parameters names {', '.join(config.target_parameters)[:160]}"
    if not readings:
        raise InvalidInput(
            f"{module} has factors of {', '.join(map(str, rows))} rows, which fit no parameter and rank of the config: {said}",
            field="adapter_config.target_parameters",
        )
    raise InvalidInput(
        f"{module}: rank_pattern or alpha_pattern tell its parameters apart, and which factors are of which does not stand in the file",
        field="adapter_config.target_parameters",
        hint="PEFT finds out with the base: load it there and save it with one rank and alpha",
    )
