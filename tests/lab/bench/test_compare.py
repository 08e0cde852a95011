import pytest

from loralens.lab.bench.compare import compare
from loralens.lab.bench.schema import BenchmarkRequest, BenchmarkResult, Interval, Point, Roofline, Row


def interval(middle, width=0.01):
    return Interval(median=middle, q1=middle - width, q3=middle + width, samples=[middle])


def result(noise=0.02, **ratios):
    rows = [
        Row(id=name, name=name, group="lora", available=True, ratio=interval(value)) for name, value in ratios.items()
    ]
    roofline = Roofline(
        flops_per_second=1, flops_from="", read_bytes_per_second=1, read_from="", device="cpu", threads=1
    )
    point = Point(
        value=None, settings={}, rows=rows, noise=interval(1.0, noise), recommendation=None, roofline=roofline,
        clock="", rounds=9, warnings=[],
    )  # fmt: skip
    return BenchmarkResult(
        format=1, request=BenchmarkRequest(), started_at="", elapsed_seconds=1, machine={"name": "x"}, points=[point],
        skipped=[], warnings=[],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "noise", "verdict"),
    [
        (1.10, 1.00, 0.02, "faster"),
        (1.00, 1.10, 0.02, "slower"),
        (1.00, 1.015, 0.001, "same"),  # the quartiles overlap
        (1.00, 1.03, 0.05, "same"),  # the change is within the noise floor
        (1.00, 1.03, 0.005, "slower"),
    ],
)
def test_only_differences_beyond_the_noise_are_called_differences(before, after, noise, verdict):
    (row,) = compare(result(noise, a=before), result(noise, a=after)).points[0].rows
    assert row.verdict == verdict
    assert row.change == pytest.approx(after / before)


def test_variants_of_one_run_only_are_listed():
    rows = {row.id: row.verdict for row in compare(result(a=1.0, b=1.0), result(b=1.0, c=1.0)).points[0].rows}
    assert rows == {"a": "only in a", "b": "same", "c": "only in b"}


def test_differing_settings_are_said():
    other = result(a=1.0).model_copy(update={"request": BenchmarkRequest(rank=64)})
    assert compare(result(a=1.0), other).differences == ["setting rank: 8 against 64"]
