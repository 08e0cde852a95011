"""A mesh of GPUs, as torch names its dimensions, read as the words of `parallelism`.

`{"mesh": {"dp_replicate": 2, "dp_shard": 4}}` means eight GPUs; what the dimensions stand for is said by words of their own,
so that an answer has one way to say it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final

from loralens.core.errors import InvalidInput
from loralens.core.question.kinds import Choice, Kind, Place, Schema, Whole, mapping

DIMENSIONS: Final = ("dp_replicate", "dp_shard", "cp", "tp", "pp", "ep")
SPREAD: Final = ("mesh", "library", "shards", "precision")
LIBRARIES: Final = ("fsdp2", "transformers", "fsdp1", "deepspeed", "megatron")
SHARDS: Final = ("parameters", "gradients", "states")
_BY_LIBRARY: Final = {"fsdp2": "fsdp2", "transformers": "fsdp2", "fsdp1": "fsdp", "megatron": "megatron"}
_BY_SHARDS: Final = {"parameters": "zero3", "gradients": "zero2", "states": "zero1"}
_PRECISION: Final = {"gather": "gather_dtype", "reduce": "reduce_dtype"}


def spread(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """`parallelism` without its mesh, library, shards and precision: the flat words that they mean.

    Raises:
        InvalidInput: a dimension that no mesh has, or a flat word that says otherwise.
    """
    if given.keys().isdisjoint(SPREAD):
        return given
    rest = {name: value for name, value in given.items() if name not in SPREAD}
    found: dict[str, object] = {}
    if given.get("precision") is not None:
        precision = mapping(given["precision"], "parallelism.precision", _PRECISION)
        found |= {_PRECISION[name]: value for name, value in precision.items()}
    if given.get("mesh") is not None:
        mesh = mapping(given["mesh"], "parallelism.mesh", DIMENSIONS, "dimension of a mesh")
        sizes = {
            name: Whole(1, 65_536).read(value, Place(f"parallelism.mesh.{name}", 1)) for name, value in mesh.items()
        }
        sharded, copies = sizes.get("dp_shard", 1), sizes.get("dp_replicate", 1)
        found |= {name: sizes[name] for name in ("cp", "tp", "pp", "ep") if name in sizes}
        found["gpus"] = prod(size for name, size in sizes.items() if name != "ep")  # which divides others anew
        if sharded > 1:
            found |= {"strategy": _strategy(given), "dp_replicate": copies}
        elif copies > 1:
            found["strategy"] = "ddp"
    for name, value in found.items():
        if rest.get(name, value) != value:
            raise InvalidInput(
                f"parallelism.{name} is {rest[name]!r}, but the mesh makes it {value!r}",
                field=f"parallelism.{name}",
                hint=f"leave out {name}, or the mesh",
            )
    return rest | found


def _strategy(given: Mapping[str, Any]) -> str:
    library = Choice(LIBRARIES).read(given.get("library", "fsdp2"), Place("parallelism.library", "fsdp2"))
    if library in _BY_LIBRARY:
        return _BY_LIBRARY[library]
    shards = Choice(SHARDS).read(given.get("shards", "parameters"), Place("parallelism.shards", "parameters"))
    return _BY_SHARDS[shards]


@dataclass(frozen=True)
class Reshard(Kind):
    """True, false, or a number of GPUs above 1 (torch's `reshard_after_forward`)."""

    choices: tuple[str, ...] = ("true", "false")

    def read(self, value: Any, at: Place) -> bool | int:
        """A number is one of GPUs: 1 is none."""
        if isinstance(value, bool):
            return value
        if isinstance(value, int) and 2 <= value <= 65_536:
            return value
        raise at.wrong("true, false, or a whole number from 2 to 65536", value, f"try {at.name}=true")

    def schema(self) -> Schema:
        """A truth value or a number."""
        return {"anyOf": [{"type": "boolean"}, {"type": "integer", "minimum": 2, "maximum": 65_536}]}

    def text_schema(self) -> Schema:
        """Numbers are taken beside the two words."""
        return {"type": "string"}


@dataclass(frozen=True)
class Elements(Kind):
    """A number of elements, `auto` (as transformers works it out from the hidden size), or none: the library's default."""

    most: int = 10**12
    nullable = True

    def read(self, value: Any, at: Place) -> int | str | None:
        """Digits may be text, as a form has them."""
        value = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
        if value is None or value == "auto":
            return None if value is None else "auto"
        if isinstance(value, str):
            raise at.wrong(f"a whole number from 0 to {self.most}, auto or null", value, f"try {at.name}=auto")
        return Whole(0, self.most).read(value, Place(at.path, 0, f"try {at.name}=auto"))

    def from_text(self, text: str) -> Any:
        """`none` and `null` mean the library's default."""
        return None if text.strip().lower() in ("none", "null") else super().from_text(text)

    def schema(self) -> Schema:
        """A number, the word, or null."""
        number = {"type": "integer", "minimum": 0, "maximum": self.most}
        return {"anyOf": [number, {"type": "string", "enum": ["auto"]}, {"type": "null"}]}

    def text_schema(self) -> Schema:
        """As text."""
        return {"type": "string"}
