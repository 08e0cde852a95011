"""Calibrations in the state folder."""

import json
from dataclasses import replace

from loralens.calibrations import FILE, calibration_of, calibrations, keep_calibration, links_of
from loralens.core.time.calibration import Calibration, TimedCase
from loralens.core.time.measured_links import LinkRate, MeasuredLinks

CPU = Calibration("cpu", "float32", 1, True, 1.4e11, 4e10, 1.2e10, 2.5e9, 4e-5, 24, 0.04, "2026-11-29", "torch")


def test_one_of_each_device_is_kept(tmp_path):
    folder = tmp_path / "state"
    assert calibrations(folder) == []
    keep_calibration(folder, CPU)
    keep_calibration(folder, replace(CPU, threads=2))
    keep_calibration(folder, replace(CPU, kernel_seconds=5e-5))
    assert len(calibrations(folder)) == 2
    assert calibration_of(folder, "cpu", "float32") == replace(CPU, kernel_seconds=5e-5)
    assert calibration_of(folder, "cpu", "bfloat16") is None


def test_the_timed_steps_are_kept_beside_the_rates(tmp_path):
    case = TimedCase("lora", 256, 4, 1, 64, True, 0.05, 0.048)
    keep_calibration(tmp_path, replace(CPU, cases=(case,)))
    assert calibration_of(tmp_path, "cpu", "float32").cases == (case,)
    rows = json.loads((tmp_path / FILE).read_text())
    del rows[0]["cases"]  # as files of earlier versions have none
    (tmp_path / FILE).write_text(json.dumps(rows))
    assert calibrations(tmp_path) == [CPU]
    (tmp_path / FILE).write_text(json.dumps([{**rows[0], "cases": [{"method": "lora"}]}]))
    assert calibrations(tmp_path) == []


def test_links_are_found_by_what_their_card_is_called(tmp_path):
    rate = LinkRate(1e10, 1e-5)
    links = MeasuredLinks("NVIDIA A100-SXM4-80GB", "nccl", 8, rate, rate, "2026-11-30", "torch")
    keep_calibration(tmp_path, replace(CPU, device="NVIDIA A100-SXM4-80GB", serial=False, links=links))
    keep_calibration(tmp_path, CPU)
    assert links_of(tmp_path, "a100") == links
    assert links_of(tmp_path, "h100") is None
    assert links_of(tmp_path, "cpu") is None


def test_a_broken_file_counts_as_none(tmp_path):
    (tmp_path / FILE).write_text("[{}]")
    assert calibrations(tmp_path) == []
    (tmp_path / FILE).write_text("{")
    assert calibrations(tmp_path) == []
