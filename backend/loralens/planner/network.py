"""What of a model multiplies: its linear layers, its adapters and its attention, read off the module tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loralens.core import methods
from loralens.core.architecture.causal import Root
from loralens.core.architecture.module import Embedding, Linear, Module
from loralens.core.architecture.registry import build
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.recipe import Recipe
from loralens.planner.question import Question
from loralens.planner.work import Network, keys_per_token, text_config


def network_of(question: Question) -> Network:
    """Weights that one token is multiplied with, and the width and reach of attention.

    Raises:
        UnsupportedArchitecture: the model holds matrices whose use per token is not known here.
    """
    recipe = question.recipe
    root = build(question.model.config)
    methods.prepare(question.method, root, recipe)
    config = text_config(question.model.config)
    matrices = trained = adapters = in_layers = 0
    for _, module in root.walk():
        weights = _matrix_parameters(module, config)
        if not weights:
            continue
        matrices += weights
        in_layers += 0 if module is root.head else weights
        if isinstance(module, Linear):
            trained += weights if module.weight.trainable else 0
            adapters += _adapter_parameters(module, recipe)
        elif any(parameter.trainable for _, parameter in module.own_parameters()):
            trained += weights
    return Network(
        matrix_parameters=matrices,
        trained_matrix_parameters=trained,
        adapter_parameters=adapters,
        layer_matrix_parameters=in_layers,
        attention_width=_attention_width(config, root),
        keys_per_token=_average_keys(config, root, recipe),
    )


def compute_dtype(recipe: Recipe) -> str:
    """The dtype that matrix products run in."""
    return recipe.autocast or recipe.weights_dtype


def _matrix_parameters(module: Module, config: Mapping[str, Any]) -> int:
    if isinstance(module, Linear):
        return module.in_features * module.out_features
    if isinstance(module, Embedding):
        return 0  # a lookup multiplies nothing
    shapes = [parameter.shape for _, parameter in module.own_parameters() if len(parameter.shape) >= 2]
    if not shapes:
        return 0
    experts, visited = _experts(config)
    sizes = [tuple(dim for dim in shape if isinstance(dim, int)) for shape in shapes]
    if experts and visited and all(len(size) == 3 and size[0] == experts for size in sizes):
        return sum(size[1] * size[2] * visited for size in sizes)
    raise UnsupportedArchitecture(
        f"operations per token are not known for {type(module).__name__}",
        field="model",
        hint="memory is; leave out tokens",
    )


def _experts(config: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """How many experts a layer has, and how many one token visits."""
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    count = next((config[name] for name in names if isinstance(config.get(name), int)), None)
    visited = config.get("num_experts_per_tok")
    return count, visited if isinstance(visited, int) else None


def _adapter_parameters(layer: Linear, recipe: Recipe) -> int:
    if layer.adapter is None:
        return 0
    rank = recipe.lora.rank
    shapes = [parameter for parameter in layer.adapter.parameters().values() if len(parameter.shape) == 2]
    return sum(parameter.numel.at(1, 1, rank) for parameter in shapes)


def _attention_width(config: Mapping[str, Any], root: Root) -> int:
    """Query heads × head width, over all layers."""
    heads, hidden = config.get("num_attention_heads"), config.get("hidden_size")
    if not isinstance(heads, int) or not isinstance(hidden, int):
        raise UnsupportedArchitecture("the config does not state its attention heads and width", field="config")
    width = config.get("head_dim")
    return (
        heads * (width if isinstance(width, int) else hidden // heads) * sum(len(stack) for _, stack in root.stacks())
    )


def _average_keys(config: Mapping[str, Any], root: Root, recipe: Recipe) -> float:
    """Keys per query, averaged over layers with and without a sliding window."""
    length, causal = recipe.sequence_length, recipe.attention != "eager"
    window = config.get("sliding_window")
    # Qwen's configs state a window that they do not use unless they say so.
    used = config.get("use_sliding_window", not str(config.get("model_type", "")).startswith("qwen"))
    window = window if isinstance(window, int) and used else None
    kinds = config.get("layer_types")
    if not isinstance(kinds, list) or not kinds or window is None:
        return keys_per_token(length, window, causal=causal)
    sliding: float = kinds.count("sliding_attention") / len(kinds)
    near, far = keys_per_token(length, window, causal=causal), keys_per_token(length, None, causal=causal)
    return sliding * near + (1 - sliding) * far
