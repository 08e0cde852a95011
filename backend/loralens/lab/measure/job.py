"""Calibrating as a job of the server: the rates are kept in the state folder, as `loralens bench --calibrate` keeps them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from loralens.calibrations import keep_calibration
from loralens.core.time.calibration import Calibration
from loralens.extras import needing
from loralens.settings import Settings


def run(spec: Mapping[str, Any]) -> Iterator[dict[str, object]]:
    """Yields the events that `api/routes/calibrations.py` describes.

    Raises:
        DeviceUnavailable: the device is not in this machine.
        DependencyMissing: what builds real models is not installed.
    """
    threads = torch.get_num_threads()
    try:
        with needing("trace", "calibrating"):
            from loralens.lab.measure.calibrate import calibrate

            for event in calibrate(spec["device"], spec["threads"], members=spec.get("members")):
                if isinstance(found := event.get("calibration"), Mapping):
                    keep_calibration(Settings().state_directory(), Calibration.read(found))
                yield event
    finally:
        torch.set_num_threads(threads)  # the process goes on to other jobs
