"""Memory of serving: one base model with many adapters and a KV cache, against a full model for every task.

    base weights + adapters (each at its own rank, or padded to the widest) + KV cache + last logits

Nothing is trained here: no gradients, no optimizer, and activations of a decode step are left out (some MiB; a long
prefill needs more, which servers bound by cutting prompts into chunks).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from loralens.core import catalogue
from loralens.core.answer.card import CONTEXT_TYPICAL
from loralens.core.answer.estimate import SHOWN_GPUS, estimate_model
from loralens.core.answer.kv_cache import cache_of
from loralens.core.errors import InvalidInput
from loralens.core.question.kinds import Choice, Maybe, Truth, Whole, entry, mapping
from loralens.core.question.model import Model, resolve
from loralens.core.question.precision import ITEM_BYTES
from loralens.core.question.recipe import Recipe

if TYPE_CHECKING:
    from loralens.core.answer.serving_shapes import ServingAnswer, ServingGpu, ServingTerm


MAX_GROUPS: Final = 64
MAX_COUNT: Final = 1_000_000
MAX_RANK: Final = 4096
KV_DTYPES: Final = ("bfloat16", "float16", "float32", "float8_e4m3", "int8")
ADAPTER_DTYPES: Final = ("bfloat16", "float16", "float32")
QUANTIZATIONS: Final = ("nf4", "int8")
_FIELDS: Final = (
    "model",
    "config",
    "adapters",
    "target_modules",
    "weights_dtype",
    "quantization",
    "adapter_dtype",
    "kv_dtype",
    "batch",
    "sequence_length",
    "padded",
    "gpu",
)


@dataclass(frozen=True, slots=True)
class Group:
    """Adapters of one rank: how many, and the bytes of one."""

    rank: int
    count: int
    parameters_each: int
    bytes_each: int


@dataclass(frozen=True, slots=True)
class Serving:
    """Bytes on one device; `adapters_bytes` is what the chosen layout needs, true ranks or padded."""

    base_bytes: int
    adapters_bytes: int
    padded_adapters_bytes: int
    kv_cache_bytes: int
    kv_bytes_per_token: int
    logits_bytes: int
    groups: tuple[Group, ...]
    model_count: int

    @property
    def total_bytes(self) -> int:
        """One base with all adapters."""
        return self.base_bytes + self.adapters_bytes + self.kv_cache_bytes + self.logits_bytes

    @property
    def full_models_bytes(self) -> int:
        """The same tasks, each with a model of its own; they share the cache's budget."""
        return self.base_bytes * self.model_count + self.kv_cache_bytes + self.logits_bytes


def serving_answer(body: Any) -> ServingAnswer:
    """What `POST /api/serving` answers.

    Body: {"model" | "config", "adapters": [{"rank", "count"}], "target_modules", "weights_dtype", "quantization",
    "adapter_dtype", "kv_dtype", "batch", "sequence_length", "padded", "gpu"}; all but the model have defaults.

    Raises:
        InvalidInput: a field is unknown, malformed or out of range; UnknownModel, UnknownGpu.
        UnsupportedArchitecture: the model keeps no plain key/value cache.
    """
    mapping(body, "body", _FIELDS)
    model = resolve(body.get("model"), body.get("config"))
    wanted = _groups(body.get("adapters", [{"rank": 8, "count": 6}]))
    batch = entry(body, "batch", Whole(1, 65_536), 1)
    length = entry(body, "sequence_length", Whole(1, 10_000_000), 4096)
    weights = entry(body, "weights_dtype", Choice(ADAPTER_DTYPES), "bfloat16")
    quantization = entry(body, "quantization", Maybe(Choice(QUANTIZATIONS)))
    if quantization is None and model.packing in QUANTIZATIONS:
        quantization = model.packing
    adapter_dtype = entry(body, "adapter_dtype", Choice(ADAPTER_DTYPES), "bfloat16")
    kv_dtype = entry(body, "kv_dtype", Choice(KV_DTYPES), "bfloat16")
    padded = entry(body, "padded", Truth(strict=True), False)
    gpus = SHOWN_GPUS if body.get("gpu") is None else (catalogue.gpu(body["gpu"]).id,)
    lora: dict[str, object] = {"rank": 8}
    if body.get("target_modules") is not None:
        lora["target_modules"] = body["target_modules"]
    recipe = Recipe.from_mapping(
        {"weights_dtype": str(weights), "lora": lora}
        | ({"quantization": {"type": quantization}} if quantization else {})
    )
    serving = _serving(model, recipe, wanted, batch, length, str(adapter_dtype), str(kv_dtype), padded)
    return _answer(model, serving, batch, length, kv_dtype, adapter_dtype, padded, gpus)


def _serving(
    model: Model,
    recipe: Recipe,
    wanted: dict[int, int],
    batch: int,
    length: int,
    adapter_dtype: str,
    kv_dtype: str,
    padded: bool,
) -> Serving:
    method = "lora" if recipe.quantization is None else "qlora"
    plan = estimate_model(model, method, recipe).plan
    base = sum(item.parameter.bytes.at(1, 1, 1) * item.count for item in plan.held if item.parameter.role == "base")
    if recipe.quantization is not None:
        # k-bit training raises norms and embeddings to float32; serving has no reason to.
        base = _packed_bytes(model, recipe)
    item = ITEM_BYTES[adapter_dtype]
    groups = tuple(
        Group(rank, count, plan.trainable.at(1, 1, rank), plan.trainable.at(1, 1, rank) * item)
        for rank, count in wanted.items()
    )
    widest = plan.trainable.at(1, 1, max(wanted)) * item
    true = sum(group.count * group.bytes_each for group in groups)
    count = sum(wanted.values())
    cache, per_token, vocabulary = cache_of(model, batch, length, ITEM_BYTES[kv_dtype])
    return Serving(
        base,
        widest * count if padded else true,
        widest * count,
        cache,
        per_token,
        batch * vocabulary * 4,
        groups,
        count,
    )


def _packed_bytes(model: Model, recipe: Recipe) -> int:
    assert recipe.quantization is not None
    plain = replace(recipe, quantization=replace(recipe.quantization, prepare_kbit=False))
    plan = estimate_model(model, "qlora", plain).plan
    return sum(item.parameter.bytes.at(1, 1, 1) * item.count for item in plan.held if item.parameter.role == "base")


def _answer(
    model: Model, s: Serving, batch: int, length: int, kv_dtype: Any, adapter_dtype: Any, padded: bool, gpus: Any
) -> ServingAnswer:
    return {
        "model": {"id": model.id, "name": model.name, "family": model.family},
        "base_bytes": s.base_bytes,
        "adapters": [
            {"rank": g.rank, "count": g.count, "parameters_each": g.parameters_each, "bytes_each": g.bytes_each}
            for g in s.groups
        ],
        "adapters_bytes": s.adapters_bytes,
        "padded_adapters_bytes": s.padded_adapters_bytes,
        "kv_cache_bytes": s.kv_cache_bytes,
        "kv_bytes_per_token": s.kv_bytes_per_token,
        "logits_bytes": s.logits_bytes,
        "total_bytes": s.total_bytes,
        "full_models_bytes": s.full_models_bytes,
        "memory_ratio": round(s.full_models_bytes / s.total_bytes, 4),
        "gpus": [_on_gpu(catalogue.gpu(name), s) for name in gpus],
        "terms": _terms(s, batch, length, kv_dtype, adapter_dtype, padded),
        "assumptions": [
            f"of a device's memory {CONTEXT_TYPICAL // 2**20} MiB are its CUDA context's and no part of this sum (assumption)",
            "activations of a decode step and of prefill chunks are left out",
            "one device; the full models share one key/value budget",
        ],
    }


def _on_gpu(gpu: catalogue.Gpu, s: Serving) -> ServingGpu:
    usable = gpu.memory_bytes - CONTEXT_TYPICAL
    free = usable - s.base_bytes - s.kv_cache_bytes - s.logits_bytes
    return {
        "gpu": gpu.id,
        "name": gpu.name,
        "memory_bytes": gpu.memory_bytes,
        "fits": s.total_bytes <= usable,
        "headroom_bytes": usable - s.total_bytes,
        "adapters_that_fit": [{"rank": g.rank, "count": max(0, free // g.bytes_each)} for g in s.groups],
        "full_models_that_fit": max(0, (usable - s.kv_cache_bytes - s.logits_bytes) // s.base_bytes),
    }


def _terms(s: Serving, batch: int, length: int, kv_dtype: Any, adapter_dtype: Any, padded: bool) -> list[ServingTerm]:
    widest = max(group.rank for group in s.groups)
    item = ITEM_BYTES[adapter_dtype]
    held = [(g.count, g.parameters_each, g.rank) for g in s.groups]
    if padded:
        held = [(s.model_count, next(each for _, each, rank in held if rank == widest), widest)]
    rows = [
        ("base weights", s.base_bytes, "every weight once", f"{s.base_bytes:,} B", "config.json"),
        (
            "adapters",
            s.adapters_bytes,
            "count × rank × Σ(in + out) × bytes",
            " + ".join(f"{count:,} × {rank} × {each // rank:,} × {item} B" for count, each, rank in held),
            "Hu et al. 2021, arXiv:2106.09685, section 4.1",
        ),
        (
            "key/value cache",
            s.kv_cache_bytes,
            "2 × layers × kv_heads × head_dim × length × batch × bytes (a window caps the length)",
            f"{s.kv_bytes_per_token:,} B a token in {kv_dtype} × {length:,} tokens × {batch:,}",
            "transformers DynamicCache",
        ),
        (
            "last logits",
            s.logits_bytes,
            "batch × vocabulary × 4 B",
            f"{batch:,} × {s.logits_bytes // (4 * batch):,} × 4 B",
            "assumption: sampling in float32",
        ),
    ]
    return [
        {"name": name, "bytes": size, "formula": formula, "substituted": substituted, "source": source}
        for name, size, formula, substituted, source in rows
    ]


def _groups(value: Any) -> dict[int, int]:
    if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= MAX_GROUPS:
        raise InvalidInput(
            f"adapters must be a list of 1 to {MAX_GROUPS} groups", field="adapters", hint='[{"rank": 8, "count": 6}]'
        )
    groups: dict[int, int] = {}
    for group in value:
        if not isinstance(group, Mapping) or set(group) - {"rank", "count"}:
            raise InvalidInput(
                "each group of adapters has rank and count", field="adapters", hint='{"rank": 8, "count": 6}'
            )
        rank = entry(group, "rank", Whole(1, MAX_RANK), 8, where="adapters")
        groups[rank] = groups.get(rank, 0) + entry(group, "count", Whole(1, MAX_COUNT), 1, where="adapters")
    return groups
