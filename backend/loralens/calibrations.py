"""Calibrations in the state folder: one of each device, number of threads and dtype; a file that people can copy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from loralens.core import catalogue
from loralens.core.errors import InvalidInput, UnknownGpu
from loralens.core.time.calibration import Calibration
from loralens.core.time.measured_links import MeasuredLinks

FILE: Final = "calibrations.json"


def keep_calibration(folder: Path, calibration: Calibration) -> Path:
    """Write it beside the others; the file's path.

    Raises:
        InvalidInput: the folder cannot be written.
    """
    others = [one for one in calibrations(folder) if _same(one) != _same(calibration)]
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps([one.to_dict() for one in [*others, calibration]], indent=1)
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InvalidInput(
            f"cannot write {path}: {error.strerror}", field="calibrate", hint="set LORALENS_STATE_DIR to another folder"
        ) from error
    return path


def calibrations(folder: Path) -> list[Calibration]:
    """What is kept; a file that cannot be read counts as none."""
    try:
        return [Calibration.read(row) for row in json.loads((folder / FILE).read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, InvalidInput):
        return []


def calibration_of(folder: Path, device: str, dtype: str) -> Calibration | None:
    """The newest of a device in a dtype."""
    return next((one for one in reversed(calibrations(folder)) if (one.device, one.dtype) == (device, dtype)), None)


def links_of(folder: Path, device: str) -> MeasuredLinks | None:
    """The newest links that were measured among cards of a name, or of one that means the same card."""
    for one in reversed(calibrations(folder)):
        if one.links is not None and _card(one.links.device) == _card(device):
            return one.links
    return None


def _card(name: str) -> str:
    try:
        return catalogue.gpu(name).id
    except (UnknownGpu, InvalidInput):
        return name


def _same(calibration: Calibration) -> tuple[str, str, int]:
    return calibration.device, calibration.dtype, calibration.threads
