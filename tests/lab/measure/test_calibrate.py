"""Calibrating: from seconds that known rates give, the fit finds these rates again; and a real step is timed.

No assertion about how long anything takes: a shared machine keeps no promise.
"""

from dataclasses import replace

import pytest

from loralens.core.time.calibration import RATES, Calibration
from loralens.core.time.measured_links import LinkRate, MeasuredLinks
from loralens.lab.device import Device
from loralens.lab.measure import calibrate

TRUE = Calibration("cpu", "float32", 1, True, 9e10, 3e10, 8e9, 1.5e9, 3e-5, 0, 0.0, "", "")


@pytest.fixture(scope="module")
def cases():
    sizes = calibrate.SIZES
    try:
        calibrate.SIZES = {"cpu": ((256, 2, 704, 1000),)}
        return list(calibrate.cases("cpu"))
    finally:
        calibrate.SIZES = sizes


def test_the_fit_finds_the_rates_that_made_the_seconds(cases):
    seconds = [calibrate.predicted(case, TRUE) for case in cases]
    found = calibrate.fit(cases, seconds, Device("cpu"), "cpu")
    packs = any(case.method == "qlora" for case in cases)
    for name in RATES:
        if packs or name != "weights_per_second":
            assert getattr(found, name) == pytest.approx(getattr(TRUE, name), rel=0.1), name


def test_every_method_is_timed_with_and_without_checkpointing(cases):
    kinds = {(case.method, case.recipe.gradient_checkpointing) for case in cases}
    assert {("full", False), ("full", True), ("lora", False), ("lora", True)} <= kinds


def test_each_step_is_told_beside_what_the_others_say_and_time_is_bounded(cases, monkeypatch):
    monkeypatch.setattr(calibrate, "cases", lambda kind: iter(cases))
    monkeypatch.setattr(calibrate, "FEWEST", 3)
    by_recipe = {case.recipe: calibrate.predicted(case, TRUE) for case in cases}
    monkeypatch.setattr(calibrate, "step_seconds", lambda config, method, recipe, device: by_recipe[recipe])
    rate = LinkRate(1e9, 1e-5)
    links = MeasuredLinks("cpu", "gloo", 2, rate, rate, "2026-11-30", "torch")
    message = {"type": "message", "kind": "all_reduce", "bytes": 1024, "seconds": 1e-5}
    monkeypatch.setattr(
        calibrate, "measure_links", lambda kind, members: iter([message, {"type": "links", "links": links.to_dict()}])
    )
    *told, last, result = calibrate.calibrate(most_seconds=-1, members=2)
    found = Calibration.read(result["calibration"])
    assert (last, found.links) == (message, links)
    assert [event["type"] for event in told] == ["case"] * 3
    assert (found.steps, len(found.cases)) == (3, 3)
    assert [case.measured_seconds for case in found.cases] == [event["seconds"] for event in told]
    assert all(case.computed_seconds > 0 for case in found.cases)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_a_real_step_stands_beside_the_computed_one(cases):
    case = next(case for case in cases if case.method == "lora")
    model = calibrate.resolve(config=case.config)
    measured, computed = calibrate.timed(model, "lora", replace(case.recipe, sequence_length=16), TRUE)
    assert measured > 0
    assert computed > 0
