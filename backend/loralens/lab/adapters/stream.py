"""Safetensors files too large to hold: one tensor at a time is read or written.

The whole header is checked before a number is read (`header`), and a file that is written appears whole or not at all.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import torch

from loralens.core.errors import InputTooLarge, InvalidInput, NotFound
from loralens.lab.adapters.header import Header, TensorEntry, read_header

DTYPES: Final = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Number formats of safetensors that are read here, as torch names them."""
NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}
MAX_SHARDS: Final = 2000
MAX_INDEX_BYTES: Final = 16 * 2**20


class TensorFile:
    """One safetensors file: its header is read at once, its tensors one by one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if not path.stat().st_size:
                raise InvalidInput(f"{path.name} is empty", field=path.name)
            mapped = np.memmap(path, np.uint8, "r")
        except OSError as error:
            raise NotFound(f"{path} cannot be read: {error.strerror}", field=path.name) from None
        self.header: Header = read_header(mapped.data)
        self.entries: dict[str, TensorEntry] = {entry.name: entry for entry in self.header.tensors}

    def read(self, name: str) -> torch.Tensor:
        """A copy of one tensor, of the shape and number format that the header states."""
        entry = self.entries[name]
        begin = self.header.data_offset + entry.begin
        content = np.fromfile(self.path, np.uint8, entry.end - entry.begin, offset=begin)
        if content.size < entry.end - entry.begin:
            raise InvalidInput(f"{self.path.name} shrank while it was read", field=self.path.name)
        return torch.from_numpy(content).view(DTYPES[entry.dtype]).view(entry.shape)


class Weights:
    """The tensors of a model's folder (`model.safetensors`, or shards with their index), by name."""

    def __init__(self, folder: Path) -> None:
        self.files = [TensorFile(path) for path in _shards(folder)]
        self._places = {name: file for file in self.files for name in file.entries}
        if sum(len(file.entries) for file in self.files) != len(self._places):
            raise InvalidInput(f"{folder}: a tensor is in two of the files", field="folder")

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def entry(self, name: str) -> TensorEntry:
        """Shape and number format of a tensor."""
        return self._places[name].entries[name]

    def read(self, name: str) -> torch.Tensor:
        """A copy of one tensor."""
        return self._places[name].read(name)


def _shards(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if folder.is_file() and folder.suffix == ".safetensors":
        return [folder]
    if not index.is_file():
        if not (folder / "model.safetensors").is_file():
            raise NotFound(
                f"{folder} has neither model.safetensors nor its index",
                field="folder",
                hint="name a folder that save_pretrained wrote, with safetensors",
            )
        return [folder / "model.safetensors"]
    if index.stat().st_size > MAX_INDEX_BYTES:
        raise InputTooLarge(f"{index.name} has more than {MAX_INDEX_BYTES} bytes", field=index.name)
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InvalidInput(f"{index} is not an index of safetensors files", field=index.name) from None
    if len(names) > MAX_SHARDS or any(not isinstance(name, str) or Path(name).name != name for name in names):
        raise InvalidInput(f"{index} names files outside of its folder, or too many", field=index.name)
    return [folder / name for name in names]


Spec = tuple[torch.dtype, tuple[int, ...]]


def write_tensors(
    path: Path, specs: Mapping[str, Spec], tensors: Iterable[tuple[str, torch.Tensor]], metadata: Mapping[str, str]
) -> int:
    """Write a safetensors file from tensors that come one by one, in the order of `specs`; returns its size in bytes.

    Source: huggingface/safetensors README, section "Format": offsets are relative to the data and leave no holes.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    position = 0
    for name, (dtype, shape) in specs.items():
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    expected = iter(specs.items())
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in tensors:
            wanted, (dtype, shape) = next(expected)
            if (name, tensor.dtype, tuple(tensor.shape)) != (wanted, dtype, shape):
                raise ValueError(f"{name} {tensor.dtype} {tuple(tensor.shape)} came where {wanted} was announced")
            file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    if next(expected, None) is not None:
        raise ValueError("fewer tensors came than were announced")
    return 8 + len(text) + position


@contextmanager
def new_folder(folder: Path, may_hold: Callable[[str], bool]) -> Iterator[Path]:
    """A folder to write into that takes the place of `folder` when all went well, and leaves nothing otherwise.

    Raises: `InvalidInput` where `folder` holds a file that `may_hold` does not allow to be replaced.
    """
    if folder.exists() and (not folder.is_dir() or not all(may_hold(path.name) for path in folder.iterdir())):
        raise InvalidInput(f"{folder} holds something other than an adapter", field="folder", hint="name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".adapter-", dir=folder.parent))
    try:
        staging.chmod(0o755)
        yield staging
        aside = Path(tempfile.mkdtemp(prefix=".adapter-", dir=folder.parent)) if folder.exists() else None
        if aside is not None:
            folder.rename(aside / "old")
        staging.rename(folder)
        if aside is not None:
            shutil.rmtree(aside)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
