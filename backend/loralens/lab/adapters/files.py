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
from loralens.lab.adapters.header import read_header

CONFIG_FILE: Final = "adapter_config.json"
WEIGHTS_FILE: Final = "adapter_model.safetensors"
MAX_ADAPTER_BYTES: Final = 4 * 2**30
"""Limit for files on this machine; what comes over the network has its own, smaller one."""

_DTYPES: Final = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_adapter(folder: str | os.PathLike[str]) -> Adapter:
    """Read the adapter in a folder (or next to a given `adapter_model.safetensors`).

    Raises: `NotFound` where a file is missing, `InvalidInput` where a file is not what it should be.
    """
    place = Path(folder)
    if place.name == WEIGHTS_FILE:
        place = place.parent
    config = _bounded(place / CONFIG_FILE, MAX_CONFIG_BYTES)
    return read_adapter_bytes(config, _bounded(place / WEIGHTS_FILE, MAX_ADAPTER_BYTES))


def read_adapter_bytes(config: bytes, weights: bytes) -> Adapter:
    """Read an adapter from the bytes of its two files. Nothing is written anywhere."""
    header = read_header(weights)
    checked = read_config(config)
    data = memoryview(weights)[header.data_offset :]
    tensors = {
        # A copy per tensor: it owns its memory (writable, aligned), and the file's bytes can be let go.
        entry.name: torch.frombuffer(bytearray(data[entry.begin : entry.end]), dtype=_DTYPES[entry.dtype]).view(
            entry.shape
        )
        for entry in header.tensors
    }
    return assemble(checked, tensors)


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


def _bounded(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise InputTooLarge(f"{path.name} has {size} bytes, at most {most} are read", field=path.name)
            content = file.read(most + 1)
    except FileNotFoundError:
        raise NotFound(
            f"{path.name} is missing in {path.parent}",
            field=path.name,
            hint=f"an adapter is a folder with {CONFIG_FILE} and {WEIGHTS_FILE}",
        ) from None
    except (IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}", field=path.name) from None
    if len(content) > most:
        raise InputTooLarge(f"{path.name} is larger than {most} bytes", field=path.name)
    return content
