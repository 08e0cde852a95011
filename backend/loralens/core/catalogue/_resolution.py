"""From a name that people type to the catalogue's model that has the same architecture.

A name that the catalogue has means its row and nothing is said. Any other name is read by rules that can be stated, and
the answer states them: `8B`, `llama3`, `Llama-3.1-8B-Instruct`, `unsloth/Qwen3-8B-bnb-4bit`. What no rule covers is
refused, because a wrong model is worse than none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final

from loralens.core.catalogue._models import DATA, index
from loralens.core.catalogue._names import LONGEST_NAME, key
from loralens.core.catalogue._spelling import INFERENCE, Spelling, spelt

NAMES: Final = DATA / "names.json"
SIZE: Final = re.compile(r"(?:\d+x)?\d+(?:\.\d+)?[bm]|a\d+(?:\.\d+)?b")
_VERSION: Final = re.compile(r"v\d+(?:\.\d+)?")
_OTHER: Final = re.compile(
    r"(vl|vision|visual|video|audio|omni|ocr|asr|tts|speech|image|llava|internvl|ovis|idefics|florence|moe|mamba|jamba|rwkv"
    r"|bitnet|1\.58bit|embed|rerank|reward|classif|guard|distil|prun|minitron|slim|sliced|sparse|linear|diffusion|dream|llada"
    r"|turbo|mini|small|medium|large|xl|xxl|lite|nano|tiny|micro|super|ultra|pro|flash|plus|next|deep|draft|eagle|medusa|hybrid"
    r"|expand|upscal|width|depth|prm|orm|rm|e[24]b|cased|uncased|multilingual|\d{4})\w*"
)
"""Words of a name that mean other shapes, another head or another kind of model: no rule reads over them."""
_WORDS: Final = {"nf4": "bitsandbytes' NF4", "int8": "bitsandbytes' 8 bits", "gptq4": "GPTQ's 4 bits",
                 "gptq8": "GPTQ's 8 bits", "fp8": "float8"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class NameReading:
    """What a name means.

    Attributes:
        id: a model of the catalogue.
        notes: how the name was read, one sentence each; empty where the catalogue has the name itself.
        packing: how the weights under this name are packed, as a recipe's `quantization`; None: they are not.
    """

    id: str
    notes: tuple[str, ...] = ()
    packing: str | None = None


def read(name: object) -> NameReading | None:
    """What a name means, or None where no rule covers it.

    >>> read("Llama-3.1-8B-Instruct").id, read("8B").id, read("unsloth/Qwen3-8B-bnb-4bit").packing
    ('llama-3.1-8b', 'llama-3.1-8b', 'nf4')
    """
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or "://" in name:
        return None
    known = index().get(key(name))
    return NameReading(known) if known is not None else _by_rule(name.strip())


@lru_cache(maxsize=1024)
def _by_rule(name: str) -> NameReading | None:
    if not re.fullmatch(r"[\w .:()/,+-]+", name) or name.count("/") > 1:
        return None
    said = spelt(name)
    if refused(name) is not None or not said.core:
        return None
    found = _shared(said) or _short(said) or _further(said)
    if found is None:
        return None
    id_, because = found
    notes = [f"{name} is read as {_title(id_)}: {because}"]
    return NameReading(id_, (*notes, *_packed(said)), said.packing if said.packing != INFERENCE else None)


def refused(name: str) -> str | None:
    """Why a name that looks like one of the catalogue's is not; None where nothing is known."""
    filed = key(name).rpartition("/")[2]
    return next((why for start, why in _data()["unlike"].items() if filed.startswith(start)), None)


def _shared(said: Spelling) -> tuple[str, str] | None:
    """The catalogue's model under another owner, for another training, or one that is known to have its shapes."""
    if said.core in _cores():
        parts = [f'"{" ".join(said.training)}" names a training or release, not other shapes'] if said.training else []
        if said.owner and said.owner not in _owners():
            parts.append(f"a copy or a further training by {said.owner}, with the vocabulary unchanged")
        return _cores()[said.core], "; ".join(parts) or "another spelling of its name"
    if said.core in _same():
        return _same()[said.core]
    return None


def _short(said: Spelling) -> tuple[str, str] | None:
    """A size alone, or a family alone."""
    for kind, table in (("size", _data()["sizes"]), ("family", _data()["families"])):
        ids = [id_ for id_ in table.get(said.core, ()) if id_ in _ids()]
        if ids:
            others = f"; others: {', '.join(ids[1:])}" if len(ids) > 1 else ""
            return ids[0], f"the {kind} alone was named{others}"
    return None


def _further(said: Spelling) -> tuple[str, str] | None:
    """A longer name around one of the catalogue's, such as `Hermes-3-Llama-3.1-8B`: somebody's further training."""
    words = said.core.split("-")
    for length in range(len(words) - 1, 1, -1):
        for start in range(len(words) - length + 1):
            core = "-".join(words[start : start + length])
            rest = words[:start] + words[start + length :]
            id_ = _cores().get(core) or _same().get(core, (None,))[0] or _families_with_size().get(core)
            if id_ is None or not any(SIZE.fullmatch(word) for word in words[start : start + length]):
                continue
            if any(SIZE.fullmatch(word) or _OTHER.fullmatch(word) for word in rest) or _names_a_family(rest):
                return None
            if core in _families_with_size() and any(_VERSION.fullmatch(word) for word in rest):
                return None
            others = _data()["families"].get(core, [id_])[1:]
            version = f"; the version is not named, others: {', '.join(others)}" if others else ""
            return id_, (
                f'"{" ".join(rest)}" is taken for the name of a further training, its vocabulary is assumed unchanged;'
                f" only its own config.json (--config, --from-hub) can tell{version}"
            )
    return None


def _names_a_family(words: list[str]) -> bool:
    """A second family in the rest of a name, as in `Idefics3-8B-Llama3`, makes it unclear which one has the shapes."""
    return "-".join(words) in _data()["families"] or any(word in _roots() for word in words)


def _packed(said: Spelling) -> list[str]:
    if said.packing is None:
        return []
    if said.packing == INFERENCE:
        return [f"{said.packed_as}: such files are for inference; the step is counted for the 16-bit original"]
    notes = [
        f"{said.packed_as}: its weights are packed as {_WORDS[said.packing]}, quantization={said.packing} unless said"
    ]
    if "awq" in said.packed_as:
        notes.append("AWQ is counted as GPTQ's 4 bits in groups of 128, which take as many bytes")
    if said.owner == "unsloth" or "unsloth" in said.packed_as:
        notes.append("layers that a dynamic quantization leaves in 16 bits are counted as packed")
    return notes


def root(core: str) -> str:
    """The family of a name without its version: `llama` for `llama-3.1-8b`."""
    found = re.match(r"[a-z]+", core)
    return found[0] if found else ""


@cache
def cores() -> Mapping[str, str]:
    """Core spelling → id of every model; a core that two models share means neither."""
    found: dict[str, str | None] = {}
    for name, id_ in index().items():
        core = spelt(name).core
        if core in found and found[core] != id_:
            # The id itself is the plainer claim: llama-7b is not what `Llama-7b` of another row means.
            found[core] = next((one for one in (found[core], id_) if one == core), None)
        else:
            found.setdefault(core, id_)
    sizes = set(_data()["sizes"])
    return {core: id_ for core, id_ in found.items() if id_ is not None and core and core not in sizes}


_cores = cores


@cache
def _same() -> Mapping[str, tuple[str, str]]:
    table = {}
    for row in _data()["same"]:
        for name in row["names"]:
            for size in row.get("sizes", [""]):
                id_ = row["id"].replace("{size}", size)
                if id_ in _ids() and (size in name or "{size}" in name):
                    table[spelt(name.replace("{size}", size)).core] = id_, row["because"] or "another name of it"
    return table


@cache
def _families_with_size() -> Mapping[str, str]:
    return {name: ids[0] for name, ids in _data()["families"].items() if SIZE.fullmatch(name.rpartition("-")[2])}


@cache
def _ids() -> frozenset[str]:
    return frozenset(index().values())


@cache
def _roots() -> frozenset[str]:
    return frozenset(root(core) for core in _cores()) | frozenset(_data()["families"])


@cache
def _owners() -> frozenset[str]:
    return frozenset(name.partition("/")[0] for name in index() if "/" in name)


def _title(id_: str) -> str:
    title: str = json.loads((DATA / "models" / f"{id_}.json").read_text(encoding="utf-8"))["name"]
    return title


@cache
def _data() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(NAMES.read_text(encoding="utf-8"))
    return data
