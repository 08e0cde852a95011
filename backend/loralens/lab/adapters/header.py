"""Read a safetensors header and refuse whatever the format does not allow, before a single tensor is made.

The file is: 8 bytes, the header's length N as an unsigned little-endian integer; N bytes of UTF-8 JSON; the data.
Source: huggingface/safetensors README, section "Format" (offsets relative to the data, no holes, no overlaps,
no duplicate keys, header starts with "{", at most 100 MB). The limits below are smaller: an adapter needs no more.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from loralens.core.errors import InputTooLarge, InvalidInput

MAX_HEADER_BYTES: Final = 8 * 2**20
MAX_TENSORS: Final = 20_000
MAX_NAME_LENGTH: Final = 512
MAX_DIMENSIONS: Final = 4
MAX_DIMENSION: Final = 2**31
REMEMBERED: Final = 16
REMEMBERED_BYTES: Final = 2**20
"""How many headers are kept with what was found in them, and how large they may be: the answer depends on nothing but
the header's bytes and the size of the data, and adapters of one base have the same to the byte."""

ITEM_BYTES: Final = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""Number formats of what PEFT stores: factors in 32 and 16 bits, buffers of modules saved in full in any of these."""

_KEYS: Final = frozenset({"dtype", "shape", "data_offsets"})
_NAME: Final = re.compile(r"[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]+)*", re.ASCII)
_FIELD: Final = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of the file: its name, number format, shape and byte range within the data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class Header:
    """A checked header: the tensors in the order of their data, the free-text metadata and where the data starts.

    The same bytes give the same object while they are remembered; `==` compares objects.
    """

    tensors: tuple[TensorEntry, ...]
    metadata: dict[str, str]
    data_offset: int

    @property
    def data_bytes(self) -> int:
        """Bytes of tensor data, without the header."""
        return self.tensors[-1].end if self.tensors else 0


def read_header(raw: bytes | bytearray | memoryview) -> Header:
    """Check a whole safetensors file held in memory and return its table of contents.

    Raises: `InvalidInput` (field `adapter_model.safetensors`) naming the first rule that is broken.
    """
    length = _header_length(raw)
    text, data_bytes = bytes(raw[8 : 8 + length]), len(raw) - 8 - length
    return _checked(text, data_bytes) if length <= REMEMBERED_BYTES else _checked.__wrapped__(text, data_bytes)


@lru_cache(maxsize=REMEMBERED)
def _checked(text: bytes, data_bytes: int) -> Header:
    entries = _json(text)
    metadata = _metadata(entries.pop("__metadata__", None))
    if not entries:
        raise _invalid("the file contains no tensors")
    if len(entries) > MAX_TENSORS:
        raise InputTooLarge(f"the file lists {len(entries)} tensors, at most {MAX_TENSORS} are read", field=_FIELD)
    tensors = sorted(
        (_entry(name, value) for name, value in entries.items()), key=lambda tensor: (tensor.begin, tensor.end)
    )
    _covers(tensors, data_bytes)
    return Header(tuple(tensors), metadata, 8 + len(text))


def _header_length(raw: bytes | bytearray | memoryview) -> int:
    size = len(raw)
    if size < 8:
        raise _invalid(f"the file has {size} bytes, too few for a safetensors file (truncated?)")
    start = bytes(raw[:8])
    # A pickle's first bytes (0x80, protocol) can also be an honest length; byte 8 tells them apart.
    if bytes(raw[8:9]) != b"{" and (start[:2] == b"PK" or (start[0] == 0x80 and start[1] <= 5)):
        raise _invalid(
            "this is a pickle (PyTorch .bin/.pt), which can run code when it is opened; only safetensors is read",
            hint="save it again with safe_serialization=True, or convert it with safetensors.torch.save_file",
        )
    length = int.from_bytes(start, "little")
    if length > MAX_HEADER_BYTES:
        raise _invalid(f"the header claims {length} bytes, at most {MAX_HEADER_BYTES} are read")
    if length > size - 8:
        raise _invalid(f"the header claims {length} bytes, the file has {size - 8} after its length (truncated?)")
    if length < 2 or bytes(raw[8:9]) != b"{":
        raise _invalid("the header does not start with '{'")
    return length


def forget_headers() -> None:
    """Forget what was remembered."""
    _checked.cache_clear()


def _json(text: bytes) -> dict[str, object]:
    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise _invalid(f"the header is not UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise _invalid("the header is nested too deeply") from None
    except InvalidInput:
        raise
    except ValueError as error:
        raise _invalid(f"the header is not JSON: {error}") from None
    if not isinstance(entries, dict):
        raise _invalid("the header is not a JSON object")
    return entries


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen = set[str]()
        for name, _ in pairs:
            if name in seen:
                raise _invalid(f"{name[:80]!r} is listed twice")
            seen.add(name)
    return found


def _no_constant(text: str) -> Any:
    raise _invalid(f"the header holds {text}, which JSON does not allow")


def _metadata(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise _invalid("__metadata__ must map names to text")
    return dict(value)


def _entry(name: str, value: Any) -> TensorEntry:
    if len(name) > MAX_NAME_LENGTH or not _NAME.fullmatch(name):
        raise _invalid(f"tensor name {name[:80]!r} is not a dotted module name (letters, digits, _ and - only)")
    if not isinstance(value, dict) or value.keys() != _KEYS:
        raise _invalid(f"{name}: expected exactly dtype, shape and data_offsets")
    dtype, shape = value["dtype"], value["shape"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise _invalid(f"{name}: dtype {str(dtype)[:40]!r} is not one of {', '.join(ITEM_BYTES)}")
    if not isinstance(shape, list) or not len(shape) <= MAX_DIMENSIONS:
        raise _invalid(f"{name}: shape must have at most {MAX_DIMENSIONS} dimensions, got {str(shape)[:60]}")
    if not all([type(size) is int and 0 <= size < MAX_DIMENSION for size in shape]):  # a bool is no int here
        raise _invalid(f"{name}: every dimension must be a whole number from 0 to {MAX_DIMENSION - 1}, got {shape}")
    begin, end = _offsets(name, value["data_offsets"])
    needed = ITEM_BYTES[dtype]
    for size in shape:
        needed *= size
    if end - begin != needed:
        raise _invalid(f"{name}: shape {shape} in {dtype} needs {needed} bytes, its offsets span {end - begin}")
    return TensorEntry(name, dtype, tuple(shape), begin, end)


def _offsets(name: str, value: Any) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2 or type(value[0]) is not int or type(value[1]) is not int:
        raise _invalid(f"{name}: data_offsets must be two whole numbers, got {str(value)[:60]}")
    begin, end = value
    if not 0 <= begin <= end:
        raise _invalid(f"{name}: data_offsets [{begin}, {end}] run backwards or below zero")
    return begin, end


def _covers(tensors: list[TensorEntry], available: int) -> None:
    position = 0
    for tensor in tensors:
        if tensor.begin < position:
            raise _invalid(f"{tensor.name}: its data overlaps the tensor before it (byte {tensor.begin})")
        if tensor.begin > position:
            raise _invalid(f"{tensor.name}: {tensor.begin - position} bytes before it belong to no tensor")
        position = tensor.end
    if position > available:
        raise _invalid(f"the tensors need {position} bytes, the file holds {available} (truncated?)")
    if position < available:
        raise _invalid(f"{available - position} bytes after the last tensor belong to no tensor")


def _invalid(message: str, hint: str | None = None) -> InvalidInput:
    return InvalidInput(message, field=_FIELD, hint=hint)
