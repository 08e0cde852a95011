import pytest

from loralens.lab.bench.compare import compare
from loralens.lab.bench.schema import BenchmarkResult, Point, Roofline
from loralens.lab.measured import Interval, Row
from loralens.lab.words import BenchmarkRequest


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


@pytest.mark.parametrize("other", [1.0, 1.09, 1.1, 1.115, 1.2, 2.0])
def test_which_run_comes_first_changes_the_direction_and_nothing_else(other):
    (there,) = compare(result(0.11, a=1.0), result(0.11, a=other)).points[0].rows
    (back,) = compare(result(0.11, a=other), result(0.11, a=1.0)).points[0].rows
    assert back.verdict == {"slower": "faster", "faster": "slower"}.get(there.verdict, there.verdict)
    assert back.change == pytest.approx(1 / there.change)


def test_variants_of_one_run_only_are_listed():
    rows = {row.id: row.verdict for row in compare(result(a=1.0, b=1.0), result(b=1.0, c=1.0)).points[0].rows}
    assert rows == {"a": "only in a", "b": "same", "c": "only in b"}


def test_the_reference_itself_is_not_compared():
    assert [row.id for row in compare(result(dense=1.0, a=1.2), result(dense=1.0, a=1.2)).points[0].rows] == ["a"]


def test_differing_settings_are_said():
    other = result(a=1.0).model_copy(update={"request": BenchmarkRequest(rank=64)})
    assert compare(result(a=1.0), other).differences == ["setting rank: 8 against 64"]


def sweep(axis, **points):
    """A sweep over `axis` whose points (value: ratio of variant a) have the sizes of the request."""
    one = result(a=1.0)
    values = [int(name[1:]) for name in points]
    settings = {"tokens": 16, "rank": 8}
    rows = [
        one.points[0].model_copy(
            update={
                "value": value,
                "settings": {**settings, axis: value},
                "rows": [Row(id="a", name="a", group="lora", available=True, ratio=interval(ratio))],
            }
        )
        for value, ratio in zip(values, points.values(), strict=True)
    ]
    request = BenchmarkRequest(sweep={"axis": axis, "values": values})
    return one.model_copy(update={"points": rows, "request": request})


def test_sweeps_of_one_axis_are_compared_at_the_values_they_share():
    found = compare(sweep("tokens", t1=1.0, t4=1.0, t16=1.0), sweep("tokens", t4=2.0, t16=1.0, t64=1.0))
    assert [(point.value, point.rows[0].change) for point in found.points] == [(4, 2.0), (16, 1.0)]


def test_equal_numbers_of_different_axes_are_not_the_same_point():
    # 8 tokens at rank 8 is no point of a sweep over ranks at 16 tokens, where 8 means the rank.
    assert compare(sweep("tokens", t8=1.0), sweep("rank", r8=2.0)).points == []
    assert [point.value for point in compare(sweep("tokens", t16=1.0), sweep("rank", r8=2.0)).points] == [16]


def test_a_single_point_is_found_in_a_sweep_by_its_sizes():
    single = result(a=1.5)
    single = single.model_copy(
        update={"points": [single.points[0].model_copy(update={"settings": {"tokens": 4, "rank": 8}})]}
    )
    for a, b in ((single, sweep("tokens", t1=1.0, t4=1.0)), (sweep("tokens", t1=1.0, t4=1.0), single)):
        assert [point.value for point in compare(a, b).points] == [4]


def test_another_mode_is_another_measurement():
    training = result(a=1.0).model_copy(update={"request": BenchmarkRequest(mode="training")})
    found = compare(result(a=1.0), training)
    assert found.points == []
    assert [(item.kind, item.name, item.a, item.b) for item in found.changed] == [
        ("setting", "mode", "forward", "training")
    ]
