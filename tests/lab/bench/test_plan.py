from loralens.lab.bench.plan import plan
from loralens.lab.device import Device
from loralens.lab.matmul.roofline import MeasuredRates
from loralens.lab.words import request_from


def planned(free=2**40, **body):
    device = Device("cpu")
    device.free_bytes = lambda: free
    return plan(request_from(body), device, MeasuredRates(device, 1e11, "", 2e10, ""))


def test_a_sweep_drops_what_does_not_fit_and_says_so():
    points = planned(sweep={"axis": "tokens"}, seconds=20)
    kept = [point for point in points if point.reason is None]
    assert 0 < len(kept) < len(points)
    assert sum(point.predicted_seconds for point in kept) <= 20
    assert max(point.value for point in kept) < min(point.value for point in points if point.reason)
    assert all("s is left" in point.reason for point in points if point.reason)
    assert sum(point.seconds for point in kept) <= 20 * 1.001
    for point in points:
        if point.left_out:
            assert point.left_out.code == "time"
            assert (
                point.left_out.values["needed_seconds"]
                == point.predicted_seconds
                > point.left_out.values["left_seconds"]
            )


def test_more_time_keeps_more_points():
    counts = [
        sum(point.reason is None for point in planned(sweep={"axis": "tokens"}, seconds=seconds))
        for seconds in (5, 60, 600)
    ]
    assert counts == sorted(counts) and counts[0] < counts[-1]


def test_what_does_not_fit_into_memory_is_left_out():
    (point,) = planned(free=2**20)
    assert "GiB of memory" in point.reason


def test_a_hopeless_single_point_is_refused_and_an_expensive_one_is_not():
    assert "needs about" in planned(tokens=8192, in_features=8192, out_features=8192, seconds=1)[0].reason
    assert planned(tokens=16, seconds=1)[0].reason is None
