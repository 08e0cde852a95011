from loralens.lab.bench.trust import warnings
from loralens.lab.device import Device
from loralens.lab.timing import Timings


def timings(noise, wall=1.0, rounds=20):
    found = Timings("dense", rounds=rounds)
    found.seconds = {"dense": {n: 1.0 for n in range(rounds)}, "again": {n: noise(n) for n in range(rounds)}}
    found.wall_per_device = [wall] * rounds
    return found


def test_a_quiet_run_has_no_warnings():
    assert warnings(Device("cpu"), timings(lambda n: 1.0), "again") == []


def test_each_disturbance_is_said():
    device = Device("cpu")
    assert "other processes took the processor" in warnings(device, timings(lambda n: 1.0, wall=1.4), "again")[0]
    assert "noisy" in warnings(device, timings(lambda n: 1.06), "again")[0]
    assert "noisy" in warnings(device, timings(lambda n: 0.9 + 0.2 * (n % 2)), "again")[0]
    assert "only 5 rounds" in warnings(device, timings(lambda n: 1.0, rounds=5), "again")[0]
