"""Adapters on disk, in PEFT's format: a folder with `adapter_config.json` and `adapter_model.safetensors`.

Reading checks everything in memory before a tensor is handed out; writing puts the whole folder in place at once.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save

from loralens.core.errors import InputTooLarge, InvalidInput, NotFound
from loralens.lab.adapters.adapter import Adapter, assemble
from loralens.lab.adapters.config import MAX_CONFIG_BYTES, read_config
from loralens.lab.adapters.header import TensorEntry, read_header

CONFIG_FILE: Final = "adapter_config.json"
WEIGHTS_FILE: Final = "adapter_model.safetensors"
MAX_ADAPTER_BYTES: Final = 4 * 2**30
"""Limit for files on this machine; what comes over the network has its own, smaller one."""

_DTYPES: Final = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_adapter(folder: str | os.PathLike[str]) -> Adapter:
    """Read the adapter in a folder (or next to a given `adapter_model.safetensors`).

    Raises: `NotFound` where a file is missing, `InvalidInput` where a file is not what it should be.
    """
    return read_folder(folder)[0]


def read_folder(folder: str | os.PathLike[str]) -> tuple[Adapter, int]:
    """The adapter in a folder and the size of its two files (see `read_adapter`)."""
    place = os.fspath(folder)
    if place.endswith(WEIGHTS_FILE):
        place = os.path.dirname(place)  # noqa: PTH120  # a switch by file is timed: pathlib costs a tenth of it
    config = _bounded(f"{place}/{CONFIG_FILE}", MAX_CONFIG_BYTES)
    weights = _bounded(f"{place}/{WEIGHTS_FILE}", MAX_ADAPTER_BYTES)
    return read_adapter_bytes(bytes(config), weights), len(config) + len(weights)


def read_adapter_bytes(config: bytes, weights: bytes | bytearray) -> Adapter:
    """Read an adapter from the bytes of its two files. Nothing is written anywhere.

    A `bytearray` is not copied: the tensors lie in it, and it must not be changed afterwards.
    """
    header = read_header(weights)
    checked = read_config(config)
    owned = weights if isinstance(weights, bytearray) else bytearray(weights)
    tensors = {entry.name: _tensor(owned, header.data_offset, entry) for entry in header.tensors}
    return assemble(checked, tensors)


def _tensor(data: bytearray, offset: int, entry: TensorEntry) -> torch.Tensor:
    dtype = _DTYPES[entry.dtype]
    begin = offset + entry.begin
    if begin % dtype.itemsize:  # the format does not promise aligned data; torch needs it
        data, begin = data[begin : offset + entry.end], 0
    count = (entry.end - entry.begin) // dtype.itemsize
    return torch.frombuffer(data, dtype=dtype, count=count, offset=begin).view(entry.shape)


def weights_bytes(adapter: Adapter) -> bytes:
    """`adapter_model.safetensors` as bytes."""
    # Copies, because safetensors refuses tensors that share memory (slices of one table do).
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in adapter.tensors().items()
    }
    return save(tensors, metadata={"format": "pt"})


def write_adapter(adapter: Adapter, folder: str | os.PathLike[str]) -> int:
    """Write the adapter's two files and return their size in bytes.

    The folder appears whole or not at all: both files are written beside it and the folder is renamed into place.
    An adapter that is already there is replaced; any other content of the folder is refused.
    """
    place = Path(folder)
    if place.exists() and (
        not place.is_dir() or any(p.name not in (CONFIG_FILE, WEIGHTS_FILE) for p in place.iterdir())
    ):
        raise InvalidInput(f"{place} holds something other than an adapter", field="folder", hint="name a new folder")
    place.parent.mkdir(parents=True, exist_ok=True)
    contents = {CONFIG_FILE: adapter.config.to_json(), WEIGHTS_FILE: weights_bytes(adapter)}
    staging = Path(tempfile.mkdtemp(prefix=".adapter-", dir=place.parent))
    try:
        staging.chmod(0o755)
        for name, content in contents.items():
            (staging / name).write_bytes(content)
        if place.exists():
            shutil.rmtree(place)
        staging.rename(place)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return sum(len(content) for content in contents.values())


def stored_bytes(folder: str | os.PathLike[str]) -> int:
    """Size on disk of an adapter's two files, as the file system states it."""
    return sum((Path(folder) / name).stat().st_size for name in (CONFIG_FILE, WEIGHTS_FILE))


def _bounded(path: str, most: int) -> bytearray:
    folder, name = os.path.split(path)
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise InputTooLarge(f"{name} has {size} bytes, at most {most} are read", field=name)
            content = bytearray(size)
            view, filled = memoryview(content), 0
            while filled < size and (count := file.readinto(view[filled:])):
                filled += count
    except FileNotFoundError:
        raise NotFound(
            f"{name} is missing in {folder}",
            field=name,
            hint=f"an adapter is a folder with {CONFIG_FILE} and {WEIGHTS_FILE}",
        ) from None
    except (IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}", field=name) from None
    if filled < size:
        raise InvalidInput(f"{name} shrank while it was read", field=name)
    return content
