"""A training that is watched while it runs: what was predicted beside what is measured, and batches that will not fit, ahead."""

from __future__ import annotations

from loralens.lab.watch.ahead import Ahead
from loralens.lab.watch.meters import CudaWatch, PeakWatch, ProcessMeter, meter_here
from loralens.lab.watch.watch import Watch

__all__ = ["Ahead", "CudaWatch", "PeakWatch", "ProcessMeter", "Watch", "meter_here"]
