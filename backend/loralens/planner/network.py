"""What of a model multiplies: its linear layers, its adapters and its attention, read off the module tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from loralens.core import methods
from loralens.core.answer.counted import counted_for
from loralens.core.architecture.causal import Root
from loralens.core.architecture.config import Config
from loralens.core.architecture.module import Embedding, Linear, Module
from loralens.core.architecture.moe import Experts, Router
from loralens.core.architecture.registry import build
from loralens.core.architecture.shape import Shape
from loralens.core.errors import LoraLensError, UnsupportedArchitecture
from loralens.core.question.recipe import Recipe
from loralens.core.tape.cost import ATTENTION, NARROW, PRODUCTS
from loralens.core.time.floats import added
from loralens.planner.question import Question
from loralens.planner.work import Network, keys_per_token, text_config

BIDIRECTIONAL: Final = frozenset({"bert", "roberta", "xlm-roberta", "camembert", "distilbert", "modernbert", "vit"})


def network_of(question: Question) -> Network:
    """Weights that one token is multiplied with, and the width and reach of attention.

    Raises:
        UnsupportedArchitecture: the model holds matrices whose use per token is not known here.
    """
    recipe = question.recipe
    root = build(question.model.config)
    methods.prepare(question.method, root, recipe)
    config = text_config(question.model.config)
    matrices = trained = in_layers = convolved = 0.0
    adapters = 0
    visited = None  # experts that a token visits, as the router beside them says
    for name, module in root.walk():
        visited = getattr(module, "chosen", visited)  # a router's
        weights = _matrix_parameters(module, visited)
        if isinstance(module, Linear) and ".experts." in name:
            weights = weights * _visited_share(config)
        weights = weights * root.uses_per_token(name, recipe)
        if not weights:
            continue
        matrices += weights
        convolved += weights if module.multiplies else 0
        in_layers += 0 if module is root.head else weights
        trained += weights if any(one.trainable for _, one in module.own_parameters()) else 0
        adapters += _adapter_parameters(module, recipe) if isinstance(module, Linear) else 0
    width, keys = (0, 0.0) if root.mixes else _attention(root, config, recipe)
    return Network(
        matrix_parameters=round(matrices),
        trained_matrix_parameters=round(trained),
        adapter_parameters=adapters,
        layer_matrix_parameters=round(in_layers),
        attention_width=width,
        keys_per_token=keys,
        mixing=_mixing(question, matrices - convolved) if root.mixes else 0.0,
    )


def experts_of(question: Question) -> int:
    """Experts of a layer that are stacked in one tensor; 0 where there are none."""
    try:
        root = build(question.model.config)
    except LoraLensError:
        return 0
    return next((module.sizes[2] for _, module in root.walk() if isinstance(module, Experts)), 0)


def _mixing(question: Question, matrices: float) -> float:
    """Operations per token of attention, scans and linear attention in forward, as the walk counts them for its time.

    What the forward pass multiplies beside the weights that a token is multiplied with.
    """
    asked = question.recipe
    words = {
        "micro_batch_size": 1, "sequence_length": asked.sequence_length, "attention": asked.attention, "padded": asked.padded,
        "weights_dtype": asked.weights_dtype, "autocast": asked.autocast, "gradient_checkpointing": False,
    }  # fmt: skip
    counted = counted_for(question.model, "full", Recipe.from_mapping(words))
    done = added(
        float(work.flops.at(1, asked.sequence_length, 1))
        for phase, cause, _, work in counted.work.rows()
        if phase == "forward" and cause in (PRODUCTS, NARROW, ATTENTION)
    )
    return max(0.0, float(done) / asked.sequence_length - 2 * matrices)


def compute_dtype(recipe: Recipe) -> str:
    """The dtype that matrix products run in."""
    return recipe.autocast or recipe.weights_dtype


def _matrix_parameters(module: Module, visited: int | None) -> float:
    if isinstance(module, Linear):
        return module.in_features * module.out_features
    if isinstance(module, Embedding):
        return 0  # a lookup multiplies nothing
    if module.multiplies is not None:
        return sum(p.numel[0] for _, p in module.own_parameters() if len(p.shape) >= 2) if module.multiplies else 0
    shapes = [parameter.shape for _, parameter in module.own_parameters() if len(parameter.shape) >= 2]
    sizes = [tuple(dim for dim in shape if isinstance(dim, int)) for shape in shapes]
    if isinstance(module, Router):
        return sum(size[0] * size[1] for size in sizes)
    stacked = [size for size in sizes if len(size) == 3]
    if not sizes or (visited and len(stacked) >= 2):  # gate-up and down of all experts; their biases add
        return sum(size[1] * size[2] * (visited or 0) for size in stacked)
    name = type(module).__name__
    raise UnsupportedArchitecture(
        f"operations per token are not known for {name}", field="model", hint="leave out tokens to get the memory alone"
    )


def _visited_share(config: Mapping[str, Any]) -> float:
    """Share of a layer's experts that one token visits, where each expert is a module of its own."""
    names = ("num_local_experts", "num_experts")
    count = next((config[name] for name in names if isinstance(config.get(name), int)), 8)
    visited = config.get("num_experts_per_tok", 2)
    return visited / count if isinstance(visited, int) else 1.0


def _adapter_parameters(layer: Linear, recipe: Recipe) -> int:
    if layer.adapter is None:
        return 0
    rank = recipe.lora.rank
    factors = [parameter for parameter in layer.adapter.parameters().values() if len(parameter.shape) == 2]
    return sum(parameter.numel.at(1, 1, rank) for parameter in factors)


def _shape(root: Root, config: Mapping[str, Any]) -> Shape:
    shape = getattr(root, "s", None)  # with the family's sliding windows; other families have none
    return shape if isinstance(shape, Shape) else Shape.read(Config(config))


def _attention(root: Root, config: Mapping[str, Any], recipe: Recipe) -> tuple[int, float]:
    """Width of all attentions together and the keys that a token meets, averaged over it."""
    spans = root.attention_spans(recipe)
    if spans is None:
        return _attention_width(config, root), _average_keys(config, _shape(root, config), recipe)
    width = sum(wide for wide, _ in spans)
    return width, added(wide * keys for wide, keys in spans) / width if width else 0.0


def _attention_width(config: Mapping[str, Any], root: Root) -> int:
    """Query heads × head width, over all layers; the mean of keys' and values' width where they differ."""
    shape = _shape(root, config)
    width = shape.head_dim
    latent = [config.get(name) for name in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")]
    numbers = [size for size in latent if isinstance(size, int)]
    if len(numbers) == 3:
        width = sum(numbers) // 2
    return shape.heads * width * shape.layers


def _average_keys(config: Mapping[str, Any], shape: Shape, recipe: Recipe) -> float:
    """Keys per query, averaged over layers with and without a sliding window."""
    causal = recipe.attention != "eager" and config.get("model_type") not in BIDIRECTIONAL
    keys = [keys_per_token(recipe.sequence_length, window, causal=causal) for window in shape.windows]
    mean: float = added(keys) / len(keys)
    return mean
