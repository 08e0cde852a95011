"""Adapters on disk, in PEFT's format: a folder with `adapter_config.json` and `adapter_model.safetensors`.

Reading checks everything in memory before a tensor is handed out; writing puts the whole folder in place at once.
"""

from __future__ import annotations

import os
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from loralens.core.errors import InputTooLarge, InvalidInput, NotFound
from loralens.lab.adapters import foreign
from loralens.lab.adapters.adalora import adalora_config, as_lora
from loralens.lab.adapters.adapter import Adapter, Layout, Spec, layout, put_together, refuse_not_finite
from loralens.lab.adapters.config import MAX_CONFIG_BYTES, AdapterConfig, read_config
from loralens.lab.adapters.finite import CHECKED, all_finite
from loralens.lab.adapters.folder import CONFIG_FILE, WEIGHTS_FILE
from loralens.lab.adapters.header import REMEMBERED, Header, forget_headers, read_header
from loralens.lab.adapters.stream import DTYPES, new_folder

MAX_ADAPTER_BYTES: Final = 4 * 2**30
"""Limit for files on this machine; what comes over the network has its own, smaller one."""


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
    return _read(config.tobytes(), weights), len(config) + len(weights)


def read_adapter_bytes(config: bytes, weights: bytes | bytearray) -> Adapter:
    """Read an adapter from the bytes of its two files. Nothing is written anywhere."""
    return _read(config, np.frombuffer(bytearray(weights), np.uint8))


def _read(config: bytes, weights: NDArray[np.uint8]) -> Adapter:
    """An adapter whose tensors lie in `weights`, which must not be changed afterwards."""
    header = read_header(weights.data)
    if (adaptive := adalora_config(config)) is not None:
        return as_lora(adaptive, _tensors(weights, header))
    checked = _config(config)
    plan = _layout(checked, header)
    tensors = _tensors(weights, header)
    if not _finite(weights, header):
        refuse_not_finite(tensors)
    return put_together(checked, plan, tensors)


# Adapters of one base have the same config and header to the byte, and what is said of them is the same: only the
# numbers differ. Whoever switches between a hundred of them checks each one's numbers, and their common words once.
_config = lru_cache(maxsize=REMEMBERED)(read_config)


@lru_cache(maxsize=REMEMBERED)
def _layout(config: AdapterConfig, header: Header) -> Layout:
    return layout(config, {entry.name: Spec(entry.shape, entry.dtype) for entry in header.tensors})


def _tensors(data: NDArray[np.uint8], header: Header) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    whole: dict[torch.dtype, torch.Tensor] = {}
    for entry in header.tensors:
        dtype, begin = DTYPES[entry.dtype], header.data_offset + entry.begin
        if begin % dtype.itemsize:  # the format does not promise aligned data; torch needs it
            copy = data[begin : header.data_offset + entry.end].copy()
            tensors[entry.name] = torch.from_numpy(copy).view(dtype).view(entry.shape)
            continue
        if dtype not in whole:
            whole[dtype] = torch.from_numpy(data[: len(data) // dtype.itemsize * dtype.itemsize]).view(dtype)
        strides = [1] if entry.shape else []
        for size in entry.shape[:0:-1]:
            strides.insert(0, strides[0] * size)
        tensors[entry.name] = whole[dtype].as_strided(entry.shape, strides, begin // dtype.itemsize)
    return tensors


def _finite(data: NDArray[np.uint8], header: Header) -> bool:
    """Whether no tensor of the file holds NaN or infinity: runs of one number format are checked whole."""
    begin = 0
    for entry, following in zip(header.tensors, (*header.tensors[1:], None), strict=True):
        if following is None or following.dtype != entry.dtype:
            # Counters and masks beside the factors (a BatchNorm's) have no NaN.
            if entry.dtype in CHECKED and not all_finite(
                data[header.data_offset + begin : header.data_offset + entry.end], entry.dtype
            ):
                return False
            begin = entry.end
    return True


def forget() -> None:
    """Forget the headers and configs seen so far: the next adapter is read as the first of its kind."""
    forget_headers()
    _config.cache_clear()
    _layout.cache_clear()


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
    contents = {CONFIG_FILE: adapter.config.to_json(), WEIGHTS_FILE: weights_bytes(adapter)}
    with new_folder(Path(folder), contents.__contains__) as staging:
        for name, content in contents.items():
            (staging / name).write_bytes(content)
    return sum(len(content) for content in contents.values())


def _bounded(path: str, most: int) -> NDArray[np.uint8]:
    try:
        with FileIO(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                name = _name(path)
                raise InputTooLarge(f"{name} has {size} bytes, at most {most} are read", field=name)
            # Not a bytearray: that is first filled with zeros, a third of the time that reading a warm file takes.
            content = np.empty(size, np.uint8)
            view, filled = content.data, 0
            while filled < size and (count := file.readinto(view[filled:])):
                filled += count
    except FileNotFoundError:
        folder = path.removesuffix(_name(path)).rstrip("/")
        found = foreign.of_files(_listed(folder))
        raise NotFound(
            f"{_name(path)} is missing in {folder}" + (f"; {found[0]}" if found else ""),
            field=_name(path),
            hint=found[1] if found else f"an adapter is a folder with {CONFIG_FILE} and {WEIGHTS_FILE}",
        ) from None
    except (IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}", field=_name(path)) from None
    if filled < size:
        raise InvalidInput(f"{_name(path)} shrank while it was read", field=_name(path))
    return content


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder or ".")  # noqa: PTH208
    except OSError:
        return []


def _name(path: str) -> str:
    return path.rpartition("/")[2]
