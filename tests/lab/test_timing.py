import itertools

import pytest

from loralens.lab.device import Sample
from loralens.lab.timing import SLOW_RATIO, quantile, race


class FakeDevice:
    """A device whose clock is told what to show: base time of a candidate times the load of the moment."""

    kind = "cpu"
    threads = 1

    def __init__(self, seconds, load=lambda number: 1.0):
        self.seconds, self.load, self.calls = seconds, load, []

    def time(self, call, first, repeats):
        name = call(first)
        self.calls.append(name)
        taken = self.seconds[name] * self.load(len(self.calls))
        return Sample(taken, taken)


def run(seconds, rounds=200, load=lambda number: 1.0, **options):
    device = FakeDevice(seconds, load)
    candidates = {name: (lambda index, name=name: name) for name in seconds}
    *_, timings = race(device, candidates, reference="dense", seconds=3600, max_rounds=rounds, min_rounds=5, **options)
    return device, timings


def test_quantiles_interpolate_like_numpy():
    import numpy

    samples = [5.0, 1.0, 4.0, 2.5, 9.0, 3.0]
    for fraction in (0.0, 0.25, 0.5, 0.75, 1.0):
        assert quantile(samples, fraction) == pytest.approx(float(numpy.quantile(samples, fraction)))
    with pytest.raises(ValueError, match="no samples"):
        quantile([], 0.5)


def test_every_candidate_gets_every_other_as_its_predecessor():
    device, _ = run({name: 1.0 for name in ("dense", "a", "b", "c")})
    pairs = {pair for pair in itertools.pairwise(device.calls) if pair[0] != pair[1]}
    assert len(pairs) == 12


def test_a_copy_of_the_weights_comes_again_only_after_all_others():
    device = FakeDevice({name: 1.0 for name in ("dense", "a", "b", "c")})
    used = []
    candidates = {name: (lambda index, name=name: used.append(index % 7) or name) for name in device.seconds}
    list(race(device, candidates, reference="dense", seconds=3600, copies=7, max_rounds=20, min_rounds=5))
    timed = used[2 * len(candidates) :]  # after warming up
    assert all(len(set(timed[at : at + 7])) == 7 for at in range(len(timed) - 7))


def test_a_seed_repeats_the_orders():
    seconds = {name: 1.0 for name in ("dense", "a", "b")}
    assert run(seconds, seed=3)[0].calls == run(seconds, seed=3)[0].calls != run(seconds, seed=4)[0].calls


def test_ratios_of_one_round_leave_a_load_out_that_comes_and_goes():
    # Twice as slow in every other stretch of 300 samples: medians of each alone would differ, ratios do not.
    _, timings = run({"dense": 1.0, "a": 1.25}, load=lambda number: 2.0 if number // 300 % 2 else 1.0)
    ratios = timings.ratios("a")
    assert quantile(ratios, 0.5) == pytest.approx(1.25)
    assert quantile(ratios, 0.25) == quantile(ratios, 0.75) == pytest.approx(1.25)
    assert set(timings.ratios("dense")) == {1.0}


def test_a_slow_candidate_does_not_eat_the_budget_and_stays_paired():
    _, timings = run({"dense": 1.0, "lesson": 30.0, "again": 1.0}, rounds=40)
    assert len(timings.of("dense")) == len(timings.of("again")) == 40
    assert len(timings.of("lesson")) == 40 / round(30 / SLOW_RATIO)
    assert timings.ratios("lesson") == [30.0] * 4


def test_rounds_end_with_the_budget_but_not_before_the_least():
    candidates = {"dense": lambda index: "dense"}
    assert [t.rounds for t in race(FakeDevice({"dense": 1.0}), candidates, reference="dense", seconds=0.0)] == [
        1, 2, 3, 4, 5
    ]  # fmt: skip


def test_samples_of_short_calls_are_long_enough_for_the_clock():
    calls = []

    class Counting(FakeDevice):
        def time(self, call, first, repeats):
            calls.append((first, repeats))
            return super().time(call, first, repeats)

    *_, timings = race(Counting({"dense": 1e-5}), {"dense": lambda index: "dense"}, reference="dense", seconds=0.0)
    assert calls[2:] == [(0, 20), (20, 20), (40, 20), (60, 20), (80, 20)]
    assert timings.rounds == 5
