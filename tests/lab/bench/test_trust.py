import pytest

from loralens.lab.bench.trust import remarks
from loralens.lab.device import Device
from loralens.lab.timing import Timings


def timings(noise, wall=1.0, rounds=20):
    found = Timings("dense", rounds=rounds)
    found.seconds = {"dense": {n: 1.0 for n in range(rounds)}, "again": {n: noise(n) for n in range(rounds)}}
    found.wall_per_device = [wall] * rounds
    return found


def test_a_quiet_run_has_nothing_to_say():
    assert remarks(Device("cpu"), timings(lambda n: 1.0), "again") == []


@pytest.mark.parametrize(
    ("seen", "code", "text", "values"),
    [
        (timings(lambda n: 1.0, wall=1.4), "contention", "other processes took the processor", {"ratio": 1.4}),
        (timings(lambda n: 1.06), "noisy", "noisy", {"median": 1.06, "q1": 1.06, "q3": 1.06}),
        (timings(lambda n: 0.9 + 0.2 * (n % 2)), "noisy", "noisy", {"median": 1.0, "q1": 0.9, "q3": 1.1}),
        (timings(lambda n: 1.0, rounds=5), "few_rounds", "only 5 rounds", {"rounds": 5}),
    ],
)
def test_each_disturbance_is_said_in_words_and_in_values(seen, code, text, values):
    (remark,) = remarks(Device("cpu"), seen, "again")
    assert remark.code == code and text in remark.text
    assert remark.values == pytest.approx(values)
