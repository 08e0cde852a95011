"""A machine's own rates: what is kept can be read again, and a processor's time adds up."""

import pytest

from loralens.core.answer.counted import counted_for
from loralens.core.errors import InvalidInput
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe
from loralens.core.time.calibration import Calibration, calibrated

CPU = Calibration("cpu", "float32", 1, True, 1.4e11, 4e10, 1.2e10, 2.5e9, 4e-5, 24, 0.04, "2026-11-29", "torch")


def step(calibration=CPU, **words):
    recipe = Recipe.from_mapping({"sequence_length": 256, "autocast": None, "weights_dtype": "float32", **words})
    found = counted_for(resolve("smollm2-135m"), "lora", recipe)
    plan = calibrated(found.work, found.trained(recipe), found.used(recipe), calibration)
    return plan, plan.at(1, 256, 8)


def test_what_is_kept_is_read_again():
    assert Calibration.read(CPU.to_dict()) == CPU


@pytest.mark.parametrize("broken", [{}, {"flops_per_second": 0}, {"bytes_per_second": "fast"}, {"unknown": 1}])
def test_a_broken_calibration_is_refused(broken):
    with pytest.raises(InvalidInput):
        Calibration.read(({**CPU.to_dict(), **broken}) if broken else {})


def test_a_processor_launches_beside_nothing():
    plan, found = step()
    assert found.parts["waiting"] == pytest.approx(plan.launch_seconds)
    assert found.seconds == pytest.approx(sum(found.parts.values()))
    assert found.parts["fixed"] == 0


def test_several_gpus_are_refused():
    with pytest.raises(InvalidInput, match="one device"):
        step(parallelism={"gpus": 2, "strategy": "ddp"})
