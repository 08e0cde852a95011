"""The recipe: everything about a training step that is not the model. The words are the contract's.

`Recipe.from_mapping` reads the nested form (JSON bodies), `nested` turns the flat form of query strings and the
command line into it. Both refuse unknown words and values out of range, naming the field and the way out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from typing import Any, Final

from loralens.core.errors import InvalidInput
from loralens.core.question import recipe_fields as check

OPTIMIZERS: Final = (
    "adamw_fused",
    "adamw_foreach",
    "adamw_loop",
    "adamw_8bit",
    "paged_adamw_8bit",
    "paged_adamw_32bit",
    "adamw_4bit",
    "adamw_anyprecision",
    "sgd",
    "sgd_momentum",
    "adafactor",
    "lion",
    "lion_8bit",
    "muon",
)
DTYPES: Final = ("float32", "bfloat16", "float16")
STRATEGIES: Final = ("none", "ddp", "zero1", "zero2", "zero3", "fsdp")
QUANTIZATIONS: Final = ("nf4", "fp4", "int8", "gptq4", "gptq8", "fp8")
LOSSES: Final = ("full", "kernel", "chunked", "fused")


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA adapter's configuration in PEFT's meaning (`rank` is PEFT's `r`, `alpha` its `lora_alpha`)."""

    rank: int = 8
    alpha: float = 16
    dropout: float = 0.0
    target_modules: tuple[str, ...] | str | None = None  # None: the family's usual ones, which the answer names
    adapter_dtype: str = "float32"
    use_dora: bool = False
    use_rslora: bool = False
    bias: str = "none"
    modules_to_save: tuple[str, ...] = ()
    rank_pattern: tuple[tuple[str, int], ...] = ()

    @staticmethod
    def from_mapping(given: Any) -> Lora:
        """Read the `lora` object; raises `InvalidInput` naming `lora.<field>`."""
        entries = check.mapping(given, "lora", {f.name for f in fields(Lora)})
        read = check.Reader(entries, "lora")
        rank = read.integer("rank", 8, 1, 65_536)
        return Lora(
            rank=rank,
            alpha=read.number("alpha", 2 * rank, 0, 1e9),
            dropout=read.number("dropout", 0.0, 0.0, 0.999),
            target_modules=read.names("target_modules", None, text_allowed=True),
            adapter_dtype=read.choice("adapter_dtype", "float32", DTYPES),
            use_dora=read.boolean("use_dora", False),
            use_rslora=read.boolean("use_rslora", False),
            bias=read.choice("bias", "none", ("none", "all", "lora_only")),
            modules_to_save=read.names("modules_to_save", ()),
            rank_pattern=read.ranks("rank_pattern"),
        )


@dataclass(frozen=True, slots=True)
class Quantization:
    """How the frozen base weights are packed (bitsandbytes' and GPTQ's words)."""

    type: str = "nf4"
    double_quant: bool = True
    compute_dtype: str = "bfloat16"
    prepare_kbit: bool = True
    group_size: int = 128

    @staticmethod
    def from_mapping(given: Any) -> Quantization:
        """Read the `quantization` object (or just its type); raises `InvalidInput`."""
        if isinstance(given, str):
            given = {"type": given}
        read = check.Reader(
            check.mapping(given, "quantization", {f.name for f in fields(Quantization)}), "quantization"
        )
        group_size = read.integer("group_size", 128, -1, 65_536)
        if group_size == 0:
            raise InvalidInput(
                "quantization.group_size must be -1 or at least 1, got 0",
                field="quantization.group_size",
                hint="-1 makes each row one group",
            )
        return Quantization(
            type=read.choice("type", "nf4", QUANTIZATIONS),
            double_quant=read.boolean("double_quant", True),
            compute_dtype=read.choice("compute_dtype", "bfloat16", DTYPES),
            prepare_kbit=read.boolean("prepare_kbit", True),
            group_size=group_size,
        )


@dataclass(frozen=True, slots=True)
class Parallelism:
    """How many GPUs share the work, by which strategy, and what is kept on the host instead."""

    gpus: int = 1
    strategy: str = "none"
    offload: str = "none"

    @staticmethod
    def from_mapping(given: Any) -> Parallelism:
        """Read the `parallelism` object; raises `InvalidInput`."""
        read = check.Reader(check.mapping(given, "parallelism", {f.name for f in fields(Parallelism)}), "parallelism")
        gpus = read.integer("gpus", 1, 1, 65_536)
        strategy = read.choice("strategy", "none", STRATEGIES)
        if gpus > 1 and strategy == "none":
            raise InvalidInput(
                f"{gpus} GPUs need a strategy; allowed: {', '.join(STRATEGIES[1:])}",
                field="parallelism.strategy",
                hint="try strategy=ddp, or fsdp to shard the weights",
            )
        return Parallelism(
            gpus, strategy, read.choice("offload", "none", ("none", "optimizer", "parameters", "activations"))
        )


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training set-up; see the module's docstring. Every field has the contract's name and default."""

    micro_batch_size: int = 1
    sequence_length: int = 2048
    gradient_accumulation_steps: int = 1
    padded: bool = False
    weights_dtype: str = "bfloat16"
    autocast: str | None = "bfloat16"
    optimizer: str = "adamw_fused"
    gradient_checkpointing: bool = False
    checkpoint_every: int = 1
    checkpoint_offload: str = "none"
    checkpoint_reentrant: bool | None = None  # None: what the stack's transformers version does
    attention: str = "sdpa"
    optimizer_in_backward: bool = False
    max_grad_norm: float | None = None
    loss: str = "full"
    fused_kernels: str = "none"
    compile: bool = False
    trainable_layers: int | None = None
    stack: tuple[tuple[str, str], ...] = ()
    lora: Lora = field(default_factory=Lora)
    quantization: Quantization | None = None
    parallelism: Parallelism = field(default_factory=Parallelism)

    @staticmethod
    def from_mapping(given: Any = None) -> Recipe:
        """Read the contract's `recipe` object.

        Raises:
            InvalidInput: an unknown word, or a value of the wrong type or out of range.
        """
        entries = check.mapping(given, "recipe", {f.name for f in fields(Recipe)}) if given is not None else {}
        try:
            return _cached(check.frozen(entries))
        except TypeError:  # something unhashable inside: read it uncached, the reader will say what is wrong
            return _read(entries)

    def to_dict(self) -> dict[str, Any]:
        """The nested JSON form, complete, so that an answer shows every default that was used."""
        result = asdict(self)
        result["stack"] = dict(self.stack)
        lora = result["lora"]
        lora["rank_pattern"] = dict(self.lora.rank_pattern)
        for key in ("target_modules", "modules_to_save"):
            if isinstance(lora[key], tuple):
                lora[key] = list(lora[key])
        result["fused_kernels"] = {"none": False, "yes": True}.get(self.fused_kernels, self.fused_kernels)
        return result


@lru_cache(maxsize=1024)
def _cached(entries: Any) -> Recipe:
    return _read(check.thawed(entries))


def _read(entries: Mapping[str, Any]) -> Recipe:
    read = check.Reader(entries, "")
    quantization = entries.get("quantization")
    return Recipe(
        micro_batch_size=read.integer("micro_batch_size", 1, 1, 65_536),
        sequence_length=read.integer("sequence_length", 2048, 1, 16_777_216),
        gradient_accumulation_steps=read.integer("gradient_accumulation_steps", 1, 1, 1_000_000),
        padded=read.boolean("padded", False),
        weights_dtype=read.choice("weights_dtype", "bfloat16", DTYPES),
        autocast=read.optional_choice("autocast", "bfloat16", ("bfloat16", "float16")),
        optimizer=read.choice("optimizer", "adamw_fused", OPTIMIZERS),
        gradient_checkpointing=read.boolean("gradient_checkpointing", False),
        checkpoint_every=read.integer("checkpoint_every", 1, 1, 10_000),
        checkpoint_offload=read.choice("checkpoint_offload", "none", ("none", "cpu")),
        checkpoint_reentrant=read.optional_boolean("checkpoint_reentrant"),
        attention=read.choice("attention", "sdpa", ("sdpa", "flash", "eager")),
        optimizer_in_backward=read.boolean("optimizer_in_backward", False),
        max_grad_norm=read.optional_number("max_grad_norm", None, 0, 1e9),
        loss=read.choice("loss", "full", LOSSES),
        fused_kernels=read.fused("fused_kernels"),
        compile=read.boolean("compile", False),
        trainable_layers=read.optional_integer("trainable_layers", None, 0, 100_000),
        stack=read.versions("stack"),
        lora=Lora.from_mapping({} if entries.get("lora") is None else entries["lora"]),
        quantization=None if quantization is None else Quantization.from_mapping(quantization),
        parallelism=Parallelism.from_mapping({} if entries.get("parallelism") is None else entries["parallelism"]),
    )


_FLAT: Final[dict[str, tuple[str, str]]] = {
    **{
        name: ("lora", name)
        for name in (
            "rank",
            "alpha",
            "dropout",
            "target_modules",
            "adapter_dtype",
            "use_dora",
            "use_rslora",
            "bias",
            "modules_to_save",
        )
    },
    **{name: ("quantization", name) for name in ("double_quant", "compute_dtype", "prepare_kbit", "group_size")},
    "quantization": ("quantization", "type"),
    **{name: ("parallelism", name) for name in ("gpus", "strategy", "offload")},
}


def flat_names() -> tuple[str, ...]:
    """Every flat name that a query string or the command line may use."""
    nested_objects = {"lora", "parallelism", "quantization", "stack"}
    return tuple(f.name for f in fields(Recipe) if f.name not in nested_objects) + tuple(_FLAT)


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turn flat names (`rank=8`, `quantization=nf4`, `gpus=2`) into the nested recipe.

    Values may be text: numbers, booleans, `none` and comma lists are understood.

    Raises:
        InvalidInput: a name that no recipe has.
    """
    result: dict[str, Any] = {}
    known = set(flat_names())
    for name, value in flat.items():
        if name not in known:
            raise check.unknown(name, known)
        if isinstance(value, str):
            value = check.parse_text(name, value)
        outer, inner = _FLAT.get(name, (name, ""))
        if not inner:
            result[outer] = value
        elif name == "quantization" and value is None:
            result["quantization"] = None
        else:
            group = result.setdefault(outer, {})
            if group is not None:
                group[inner] = value
    return result


def merged_recipe(words: Mapping[str, Any]) -> dict[str, Any]:
    """Recipe words that may be nested or flat, as one nested recipe."""
    flat = set(flat_names())
    plain = {name: value for name, value in words.items() if name in flat and not isinstance(value, Mapping)}
    rest = {name: value for name, value in words.items() if name not in plain}
    result = nested(plain)
    for name, value in rest.items():
        if isinstance(value, Mapping) and isinstance(result.get(name), dict):
            result[name] = {**result[name], **value}
        else:
            result[name] = value
    return result
