"""`adapter_config.json`: PEFT's LoRA configuration, read strictly and written so that PEFT reads it back.

PEFT's words are translated at this boundary: `r` is our rank, `lora_alpha` our alpha (glossary).
A setting that would change what the factors mean and is not handled here is refused by name, never ignored.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from loralens.core.errors import InputTooLarge, InvalidInput
from loralens.core.jsontext import from_json
from loralens.core.question import patterns
from loralens.core.question.kinds import Choice, Kind, Maybe, Number, Place, Text, Truth, Whole, entry
from loralens.lab.adapters import foreign

MAX_CONFIG_BYTES: Final = 2**20
MAX_RANK: Final = 4096
MAX_NAMES: Final = 20_000
_FIELD: Final = "adapter_config.json"
_WHERE: Final = "adapter_config"
_RANK: Final = Whole(1, MAX_RANK)
_ALPHA: Final = Number(0, 1e6, inside=True)
_AS_TRAINED: Final = "the value that it was trained with stands in its trainer's settings or log; it cannot be guessed"
_TEXT: Final = Maybe(Text(1024))

# Read, checked and used.
_READ: Final = frozenset(
    [
        "peft_type",
        "r",
        "lora_alpha",
        "target_modules",
        "lora_dropout",
        "bias",
        "use_rslora",
        "use_dora",
        "modules_to_save",
        "rank_pattern",
        "alpha_pattern",
        "base_model_name_or_path",
        "task_type",
        "init_lora_weights",
        "fan_in_fan_out",
        "lora_bias",
        "exclude_modules",
        "target_parameters",
    ]
)
# Of how the factors began; of no meaning once a resized adapter begins otherwise.
_BEGINNINGS: Final = frozenset(["loftq_config", "eva_config", "corda_config", "lora_ga_config"])
# None of them changes what saved factors compute; they are handed on as they stand.
_HANDED_ON: Final = _BEGINNINGS | {
    "auto_mapping",
    "peft_version",
    "revision",
    "inference_mode",
    "layers_to_transform",
    "layers_pattern",
    "megatron_core",
    "qalora_group_size",
    "ensure_weight_tying",
    "runtime_config",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "layer_replication",
}
_ADALORA: Final = "loralens adapter resize FOLDER OUTPUT --energy 1 writes AdaLoRA as LoRA"
CHANGES_THE_MODEL: Final = frozenset(
    [
        "arrow_config",
        "enable_lora",
        "kasa_config",
        "megatron_config",
        "monteclora_config",
        "use_bdlora",
        "use_qalora",
        "velora_config",
    ]
)
"""Keys that are refused unless they are empty. Source: fields of peft 0.21 LoraConfig; enable_lora of peft 0.1."""


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """What PEFT's `LoraConfig` says about an adapter, in our words."""

    rank: int
    alpha: float
    target_modules: tuple[str, ...] | str
    dropout: float = 0.0
    bias: str = "none"
    use_rslora: bool = False
    use_dora: bool = False
    modules_to_save: tuple[str, ...] = ()
    rank_pattern: tuple[tuple[str, int], ...] = ()
    alpha_pattern: tuple[tuple[str, float], ...] = ()
    base_model: str | None = None
    task_type: str | None = "CAUSAL_LM"
    fan_in_fan_out: bool = False
    lora_bias: bool = False
    init: bool | str = True
    """PEFT's `init_lora_weights`: some change the base that the factors belong to, see `begins`."""
    exclude_modules: tuple[str, ...] | str = ()
    target_parameters: tuple[str, ...] = ()
    """Parameters with factors of their own, by the ends of their names."""
    handed_on: str = "{}"
    """What PEFT keeps beside all this, as JSON: written as it was read."""

    @property
    def acts_otherwise(self) -> tuple[str, ...]:
        """Settings by which the updates act from some token on alone, or on layers that the base does not have."""
        given = json.loads(self.handed_on)
        return tuple(key for key in ("alora_invocation_tokens", "layer_replication") if given.get(key))

    @property
    def trains_tokens(self) -> bool:
        """Whether single rows of an embedding were trained (`trainable_token_indices`)."""
        return bool(json.loads(self.handed_on).get("trainable_token_indices"))

    def rank_of(self, module: str) -> int:
        """Rank of one module: the first `rank_pattern` that matches its name, else `rank`."""
        found = patterns.first_match(self.rank_pattern, module, "adapter_config.rank_pattern")
        return self.rank if found is None else found

    def alpha_of(self, module: str) -> float:
        """Alpha of one module: the first `alpha_pattern` that matches its name, else `alpha`."""
        found = patterns.first_match(self.alpha_pattern, module, "adapter_config.alpha_pattern")
        return self.alpha if found is None else found

    def scaling_of(self, module: str) -> float:
        """Alpha / rank, or alpha / sqrt(rank) with `use_rslora`.

        Source: `LoraLayer.update_layer`, huggingface/peft 0.21; Kalajdzievski 2023, arXiv:2312.03732.
        """
        rank = self.rank_of(module)
        return self.alpha_of(module) / (math.sqrt(rank) if self.use_rslora else rank)

    def to_peft(self) -> dict[str, object]:
        """The JSON object PEFT reads, with PEFT's own key names."""
        targets = self.target_modules if isinstance(self.target_modules, str) else list(self.target_modules)
        return json.loads(self.handed_on) | {
            "peft_type": "LORA",
            "task_type": self.task_type,
            "base_model_name_or_path": self.base_model,
            "r": self.rank,
            "lora_alpha": _whole_if_possible(self.alpha),
            "lora_dropout": self.dropout,
            "target_modules": targets,
            "bias": self.bias,
            "use_rslora": self.use_rslora,
            "use_dora": self.use_dora,
            "modules_to_save": list(self.modules_to_save) or None,
            "rank_pattern": dict(self.rank_pattern),
            "alpha_pattern": {name: _whole_if_possible(alpha) for name, alpha in self.alpha_pattern},
            "fan_in_fan_out": self.fan_in_fan_out,
            "lora_bias": self.lora_bias,
            "target_parameters": list(self.target_parameters) or None,
            "init_lora_weights": self.init,
            "exclude_modules": (
                self.exclude_modules if isinstance(self.exclude_modules, str) else list(self.exclude_modules) or None
            ),
        }

    def begun_anew(self) -> AdapterConfig:
        """The same for factors that no longer are those of the beginning that `init` names."""
        rest = {key: value for key, value in json.loads(self.handed_on).items() if key not in _BEGINNINGS}
        return replace(self, init=True, handed_on=_text_of(rest))

    def to_json(self) -> bytes:
        """`adapter_config.json` as UTF-8 bytes, keys sorted so that equal configs are equal files."""
        return (json.dumps(self.to_peft(), indent=2, sort_keys=True) + "\n").encode()


def read_config(raw: bytes) -> AdapterConfig:
    """Read and check the bytes of an `adapter_config.json`.

    Raises: `InputTooLarge` above 1 MiB; `InvalidInput` with the field `adapter_config.<PEFT key>` otherwise.
    """
    if len(raw) > MAX_CONFIG_BYTES:
        raise InputTooLarge(f"the config has {len(raw)} bytes, at most {MAX_CONFIG_BYTES} are read", field=_FIELD)
    try:
        given = from_json(raw, parse_constant=_no_constant)
    except RecursionError:
        raise InvalidInput("the config is nested too deeply", field=_FIELD) from None
    except InvalidInput as error:
        raise InvalidInput(error.message, field=error.field or _FIELD, hint=error.hint) from None
    except ValueError as error:  # includes UnicodeDecodeError and JSONDecodeError
        raise InvalidInput(f"the config is not UTF-8 JSON: {error}", field=_FIELD) from None
    if not isinstance(given, dict):
        raise InvalidInput("the config is not a JSON object", field=_FIELD)
    return config_from_mapping(given)


def config_from_mapping(given: Mapping[str, Any]) -> AdapterConfig:
    """Check a decoded PEFT config (see `read_config`)."""
    if given.get("peft_type") != "LORA":
        found = foreign.of_config(given)
        raise _invalid(
            "peft_type",
            f"only LORA adapters are read, got {str(given.get('peft_type'))[:40]!r}" if found is None else found[0],
            hint=_ADALORA if given.get("peft_type") == "ADALORA" else None if found is None else found[1],
        )
    _refuse_unknown(given)
    parameters = _names(given.get("target_parameters") or [], "target_parameters")
    return AdapterConfig(
        rank=_read(given, "r", _RANK, 8),
        alpha=float(_read(given, "lora_alpha", _ALPHA, 8)),
        target_modules=() if parameters and not given.get("target_modules") else _targets(given.get("target_modules")),
        dropout=float(_read(given, "lora_dropout", Number(0, 0.999), 0.0)),
        bias=_read(given, "bias", Choice(("none", "all", "lora_only")), "none"),
        use_rslora=_flag(given, "use_rslora"),
        use_dora=_flag(given, "use_dora"),
        modules_to_save=_names(given.get("modules_to_save") or [], "modules_to_save"),
        rank_pattern=_pattern(given.get("rank_pattern"), "rank_pattern", _RANK),
        alpha_pattern=_pattern(given.get("alpha_pattern"), "alpha_pattern", _ALPHA),
        base_model=_read(given, "base_model_name_or_path", _TEXT),
        task_type=_read(given, "task_type", _TEXT),
        fan_in_fan_out=_flag(given, "fan_in_fan_out"),
        lora_bias=_flag(given, "lora_bias"),
        init=_init(given.get("init_lora_weights", True)),
        exclude_modules=_excluded(given.get("exclude_modules")),
        target_parameters=parameters,
        handed_on=_text_of({"inference_mode": True} | {key: given[key] for key in given if key in _HANDED_ON}),
    )


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    for key in sorted(set(given) - _READ - _HANDED_ON):
        if given[key] not in (None, False, "", [], {}):
            what = (
                "this changes what the adapter computes and is not handled here"
                if key in CHANGES_THE_MODEL
                else "it is not handled here: what it does to the factors is not known"
            )
            raise _invalid(
                str(key)[:60],
                f"{str(key)[:60]!r} is set to {str(given[key])[:40]!r}; {what}",
                hint="only plain LoRA (with rsLoRA, DoRA, rank and alpha patterns, modules_to_save) is read",
            )


def _init(value: Any) -> bool | str:
    if isinstance(value, bool) or (isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_]{1,40}", value)):
        return value
    if value is None:
        return True
    raise _invalid("init_lora_weights", f"init_lora_weights must be a word, true or false, got {str(value)[:40]!r}")


def _excluded(value: Any) -> tuple[str, ...] | str:
    if isinstance(value, str):
        if len(value) > 4096:
            raise _invalid("exclude_modules", "exclude_modules as text must have at most 4096 characters")
        return value
    return _names(value or [], "exclude_modules")


def _targets(value: Any) -> tuple[str, ...] | str:
    if isinstance(value, str):
        if not 1 <= len(value) <= 4096:
            raise _invalid("target_modules", "target_modules as text must have 1 to 4096 characters")
        patterns.check_handed_on(value, "adapter_config.target_modules")  # an answer hands it on to PEFT
        return value
    names = _names(value, "target_modules")
    if not names:
        raise _invalid("target_modules", "target_modules names no module")
    return names


def _names(value: Any, key: str) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_NAMES:
        hint = (
            "the ends of the names that have factors in adapter_model.safetensors" if key == "target_modules" else None
        )
        raise _invalid(key, f"{key} must be a list of module names", hint)
    for name in value:
        if not isinstance(name, str) or not 1 <= len(name) <= 512 or not name.isprintable():
            raise _invalid(key, f"{key} holds {str(name)[:60]!r}, which is not a module name")
        if "/" in name or "\\" in name or ".." in name:
            raise _invalid(key, f"{key} holds {name[:60]!r}, which is not a module name")
    return tuple(sorted(set(value)))


def _pattern(value: Any, key: str, kind: Kind) -> tuple[tuple[str, Any], ...]:
    if value is None:
        return ()
    if not isinstance(value, dict) or len(value) > patterns.MAX_PATTERNS:
        raise _invalid(key, f"{key} must map at most {patterns.MAX_PATTERNS} module names to numbers")
    # Compiling each pattern here refuses an unsafe one even if no module would meet it. Order matters: first wins.
    for name in value:
        patterns.check(name, f"adapter_config.{key}")
        patterns.check_handed_on(name, f"adapter_config.{key}")
    return tuple((name, kind.read(number, Place(f"{_WHERE}.{key}"))) for name, number in value.items())


def _read(given: Mapping[str, Any], key: str, kind: Kind, default: Any = None) -> Any:
    try:
        return entry(given, key, kind, default, where=_WHERE)
    except InvalidInput as error:
        raise InvalidInput(error.message, field=error.field, hint=_AS_TRAINED) from None


def _flag(given: Mapping[str, Any], key: str) -> bool:
    return bool(_read(given, key, Maybe(Truth(strict=True))))


def _no_constant(text: str) -> Any:
    raise InvalidInput(f"the config holds {text}, which JSON does not allow", field=_FIELD)


def _text_of(rest: Mapping[str, Any]) -> str:
    return json.dumps(rest, sort_keys=True)


def _whole_if_possible(number: float) -> float | int:
    return int(number) if float(number).is_integer() else number


def _invalid(key: str, message: str, hint: str | None = None) -> InvalidInput:
    return InvalidInput(message, field=f"adapter_config.{key}", hint=hint)
