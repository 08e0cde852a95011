"""Does an adapter fit a base: its names, its layers, its shapes, and the cause where it does not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from loralens.core.errors import LoraLensError
from loralens.core.question.model import resolve
from loralens.lab.adapters.answers import Severity
from loralens.lab.adapters.doctor.base import Base, WeightedModule, bases_that_fit, in_tower
from loralens.lab.adapters.doctor.finding import SHOWN_MODULES, Finding
from loralens.lab.adapters.doctor.patient import Pair, Patient
from loralens.lab.adapters.parameters import without_nesting

FUSED: Final[tuple[tuple[str, frozenset[str]], ...]] = (
    ("qkv_proj", frozenset({"q_proj", "k_proj", "v_proj"})),
    ("query_key_value", frozenset({"q_proj", "k_proj", "v_proj"})),
    ("c_attn", frozenset({"q_proj", "k_proj", "v_proj"})),
    ("Wqkv", frozenset({"q_proj", "k_proj", "v_proj"})),
    ("W_pack", frozenset({"q_proj", "k_proj", "v_proj"})),
    ("gate_up_proj", frozenset({"gate_proj", "up_proj"})),
)
"""Layers that some model code keeps as one matrix, and the names that others give to its parts."""

MAX_LAYERS: Final = 10_000
_LAYER: Final = re.compile(r"(?P<head>.*?)(?:^|\.)(?P<tail>\d+\..+)")
_EXPERT: Final = re.compile(r"(?P<experts>.+\.experts)\.\d+\..+")
_WRAPPERS: Final = (
    ("_orig_mod", "the weights were saved from a model inside torch.compile"),
    ("base_model.model", "the model was wrapped by PEFT twice"),
    ("module", "the weights were saved from a model inside DistributedDataParallel or DeepSpeed"),
    (
        "language_model",
        "it was trained on the multimodal class, and the base is the language model alone (or the other way)",
    ),
    ("model", "it was trained on another class of the same model (with or without its head)"),
)
_PEFT: Final = "huggingface/peft 0.21.2 tuners/tuners_utils.py, check_target_module_exists"
_KEY_MAPPING: Final = "huggingface/peft 0.21.2 peft_model.py, PeftModel.from_pretrained: key_mapping"
_LOADING: Final = "torch.nn.Module.load_state_dict"
_RESIZE: Final = (
    "model.resize_token_embeddings({rows}) before PeftModel.from_pretrained, with the tokenizer it was trained with"
)
_STORED: Final = re.compile(
    r"base_model\.model\.(?P<module>.+?)(?:\.base_layer|\.modules_to_save(?:\.default)?)?\.weight"
)
_TEXT_PREFIXES: Final = ("model.language_model.", "language_model.model.")


def fit(patient: Patient, base: Base) -> list[Finding]:
    """Findings of names and shapes against the base."""
    return [*_factors(patient, base), *_whole(patient, base)]


def _factors(patient: Patient, base: Base) -> list[Finding]:
    pairs = _inside(patient.pairs, base)
    if not pairs:
        return []
    pairs = _unrepeated(pairs, patient.config.get("layer_replication"))
    unmatched = {name: pair for name, pair in pairs.items() if not _takes(base.places.get(without_nesting(name)), pair)}
    matched = len(pairs) - len(unmatched)
    findings = []
    if unmatched:
        findings.append(_names(pairs, unmatched, matched, base))
    plain = [name for name, pair in pairs.items() if not pair.is_parameter and name not in unmatched]
    wrong = [name for name in plain if _shape(base.places[name]) != _shape(pairs[name])]
    if wrong:
        findings.append(_shapes(pairs, wrong, base))
    if not findings:
        findings += _other_base(patient, base)
    return findings


def _whole(patient: Patient, base: Base) -> list[Finding]:
    """Tables and heads that are stored in full, of a vocabulary that is not the base's."""
    for name, entry in {} if patient.file is None else patient.file.entries.items():
        match = _STORED.fullmatch(name)
        place = base.places.get(match["module"]) if match else None
        if place is None or place.kind == "other" or len(entry.shape) != 2 or 0 in entry.shape:
            continue
        rows, width = _shape(place) if place.kind == "embedding" else _shape(place)[::-1]
        if entry.shape[0] != rows and entry.shape[1] == width:
            what = (
                f"{match['module'] if match else name} is stored with {entry.shape[0]:,} rows, {base.name} has {rows:,}"
            )
            return [_added(what, entry.shape[0], [name])]
    return []


def _added(what: str, rows: int, modules: list[str]) -> Finding:
    cause, repair = f"tokens were added before training: it is for {rows} entries", _RESIZE.format(rows=rows)
    return Finding("fault", "fit", "vocabulary", what, cause, repair, modules[:SHOWN_MODULES], _LOADING)


def _inside(pairs: Mapping[str, Pair], base: Base) -> dict[str, Pair]:
    """The pairs under the names of the language model, where the config is that of a multimodal model around it."""
    if base.inner is base.config:
        return dict(pairs)
    renamed = {}
    whole = any(map(in_tower, base.places))
    for name, pair in pairs.items():
        prefix = next((prefix for prefix in _TEXT_PREFIXES if name.startswith(prefix)), None)
        inner = name if prefix is None else "model." + name.removeprefix(prefix)
        if in_tower(name) and not whole:
            continue  # this family's tower is not known by name
        renamed[inner if inner in base.places else name] = pair
    return renamed


def _unrepeated(pairs: dict[str, Pair], ranges: object) -> dict[str, Pair]:
    """The pairs under the names of the base's own layers, of which PEFT's layer_replication repeats some.

    Source: huggingface/peft 0.21.2 utils/other.py, replicate_layers.
    """
    if not isinstance(ranges, list) or not ranges:
        return pairs
    if any(not isinstance(one, list) or [type(end) for end in one] != [int, int] or not 0 <= one[0] <= one[1] <= MAX_LAYERS
           for one in ranges):  # fmt: skip
        return pairs
    own = [layer for first, end in ranges for layer in range(first, end)]
    found = {}
    for name, pair in pairs.items():
        match = re.search(r"\.(\d+)\.", name)
        layer = own[int(match[1])] if match and int(match[1]) < len(own) else None
        found[name if match is None or layer is None else f"{name[: match.start(1)]}{layer}{name[match.end(1) :]}"] = (
            pair
        )
    return found


def _takes(place: WeightedModule | None, pair: Pair) -> bool:
    if place is None or pair.is_parameter:  # any module that holds weights may have the parameter
        return place is not None
    return place.kind == ("embedding" if pair.is_embedding else "linear")


def _shape(of: Pair | WeightedModule) -> tuple[int, int]:
    return of.in_features, of.out_features


def _names(pairs: Mapping[str, Pair], unmatched: Mapping[str, Pair], matched: int, base: Base) -> Finding:
    count = f"{matched} of {len(pairs)} modules match {base.name}"
    names = list(unmatched)
    severity: Severity = "fault"
    source: str | None = _PEFT
    if renaming := _renaming(names, base):
        old, new = renaming
        code, cause = "prefix", f"the names begin with {old or 'nothing'!r}, the base's with {new or 'nothing'!r}: "
        cause += _wrapped(old, new)
        pattern = "^" + re.escape(old + "." if old else "")
        repair = f"PeftModel.from_pretrained(base, folder, key_mapping={{{pattern!r}: {new + '.' if new else ''!r}}})"
        source = _KEY_MAPPING
        if {old, new} == {"language_model.model", "model.language_model"}:
            severity, cause = "warning", cause + "; versions of transformers differ in this, and some rename on loading"
    elif experts := [name for name in names if (m := _EXPERT.fullmatch(name)) and m["experts"] in base.places]:
        code, names = "experts", experts
        cause = "the adapter has factors for each expert; since transformers 5 a layer's experts are one stacked weight"
        repair = "load it with the transformers 4 it was trained with, or with a PEFT whose conversion knows this model"
        source = "huggingface/peft 0.21.2 utils/transformers_weight_conversion.py"
    elif fused := _fused(names, base):
        code = "fused"
        cause, repair = fused
    elif beyond := _beyond(names, base):
        code, names = "layers", beyond[0]
        cause = f"the adapter goes up to layer {beyond[1]}, the base has {beyond[2]} layers: it is of a larger model"
        repair = _right_base(pairs)
    else:
        code = "other_names"
        have = Counter(name.rpartition(".")[2] for name in base.linear)
        missing = sorted({name.rpartition(".")[2] for name in names})
        cause = f"it is made for {', '.join(missing)[:120]}; the base's linear layers are {', '.join(have)[:160]}"
        repair = _right_base(pairs)
    return Finding(severity, "fit", code, count, cause, repair, names[:SHOWN_MODULES], source)


def _renaming(names: Iterable[str], base: Base) -> tuple[str, str] | None:
    """The beginning of all these names and the one that would make each of them a name of the base."""
    heads = {(m["head"], m["tail"]) if (m := _LAYER.fullmatch(name)) else _outside(name) for name in names}
    there = [(m["head"], m["tail"]) if (m := _LAYER.fullmatch(name)) else _outside(name) for name in base.places]
    layered = {head for head, tail in heads if tail[0].isdigit()}
    targets = Counter(head for head, tail in there if tail[0].isdigit())
    if len(layered) != 1 or not targets:
        return None
    old = next(iter(layered))
    for new, _ in targets.most_common():
        have = {tail for head, tail in there if head == new}
        mine = {tail for head, tail in heads if head == old}
        if old != new and mine and mine <= have:
            return _shortest(old, new)
    return None


def _outside(name: str) -> tuple[str, str]:
    head, _, tail = name.rpartition(".")
    return head, tail


def _shortest(old: str, new: str) -> tuple[str, str]:
    """Both without the end that they share: `x.model.layers`, `model.layers` is `x`, nothing."""
    a, b = old.split("."), new.split(".")
    while a and b and a[-1] == b[-1]:
        a.pop()
        b.pop()
    return ".".join(a), ".".join(b)


def _wrapped(old: str, new: str) -> str:
    differ = old + "." + new
    return next((why for word, why in _WRAPPERS if word in differ), "it was trained on another class, or renamed")


def _fused(names: Iterable[str], base: Base) -> tuple[str, str] | None:
    for name in names:
        parent, _, leaf = name.rpartition(".")
        for whole, parts in FUSED:
            if leaf == whole and any(f"{parent}.{part}" in base.places for part in parts):
                return (
                    f"{leaf} is one layer in the code it was trained with; the base has {', '.join(sorted(parts))}",
                    "cut lora_B by rows into the parts, each with the whole lora_A; or load the model code it was trained with",
                )
            if leaf in parts and f"{parent}.{whole}" in base.places:
                return (
                    f"{leaf} is a layer of its own in the code it was trained with; in the base it is a part of {whole}",
                    "put the parts' factors together (lora_A one above the other, lora_B block by block: the rank adds up); "
                    "or load the model code it was trained with",
                )
    return None


def _beyond(names: Iterable[str], base: Base) -> tuple[list[str], int, int] | None:
    count = base.layers
    own = [(name, int(m[1])) for name in names if (m := re.search(r"\.(\d+)\.", name))]
    beyond = [name for name, layer in own if layer >= count]
    first = [re.sub(r"\.\d+\.", ".0.", name, count=1) for name in beyond]
    if not beyond or not all(name in base.places for name in first):
        return None
    return beyond, max(layer for _, layer in own), count


def _shapes(pairs: Mapping[str, Pair], wrong: list[str], base: Base) -> Finding:
    first = wrong[0]
    pair, place = pairs[first], base.places[first]
    what = (
        f"{len(wrong)} of {len(pairs)} modules have another shape than {base.name}'s: {first} is for "
        f"{pair.out_features} × {pair.in_features}, the base's is {place.out_features} × {place.in_features}"
    )
    code, cause, repair = "shape", "it is of a model of another size", _right_base(pairs)
    if all(_shape(pairs[name]) == _shape(base.places[name])[::-1] for name in wrong):
        code, cause = (
            "transposed",
            "input and output stand in each other's place: written by hand, or by a converter that took a transposed layer for a plain one",
        )
        repair = "swap them: the new lora_A is lora_B transposed, the new lora_B is lora_A transposed"
    elif {name.rpartition(".")[2] for name in wrong} <= {"lm_head", "embed_tokens", "wte", "embed_in", "embed_out"}:
        return _added(what, pair.in_features if pair.is_embedding else pair.out_features, wrong)
    return Finding("fault", "fit", code, what, cause, repair, wrong[:SHOWN_MODULES], _LOADING)


def _right_base(pairs: Mapping[str, Pair]) -> str:
    sample = [pair for pair in pairs.values() if not pair.is_embedding]
    found = bases_that_fit({pair.module: _shape(pair) for pair in sample}) if sample else []
    return (
        f"take the base that it was trained on; its names and shapes fit {', '.join(found)}"
        if found
        else (
            "take the base that it was trained on (base_model_name_or_path in adapter_config.json); no model known here fits"
        )
    )


def _other_base(patient: Patient, base: Base) -> list[Finding]:
    """Names and shapes agree, but the adapter says that it was trained on another model."""
    said = patient.config.get("base_model_name_or_path")
    if not isinstance(said, str) or not said:
        return []
    try:
        trained_on = resolve(said, None)
    except LoraLensError:
        return []
    if base.id in (trained_on.id, "custom"):
        return []
    return [
        Finding(
            "warning",
            "fit",
            "other_base",
            f"it was trained on {said}, not on {base.name}",
            "names and shapes agree, but factors are an update of the weights that they were trained with",
            f"use {trained_on.name} as its base",
        )
    ]
