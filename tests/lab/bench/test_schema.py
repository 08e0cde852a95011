import pytest

from loralens.core.errors import InvalidInput
from loralens.lab.words import SWEEPS, BenchmarkRequest, request_from


def test_every_field_has_a_default():
    assert request_from({}) == BenchmarkRequest()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"rank": 0}, "rank"),
        ({"rank": 10**9}, "rank"),
        ({"rank": "eight"}, "rank"),
        ({"rank": "8"}, "rank"),
        ({"seed": False}, "seed"),
        ({"alpha": True}, "alpha"),
        ({"sweep": {"axis": "rank", "values": [True]}}, "sweep.values"),
        ({"tokens": 8193}, "tokens"),
        ({"alpha": float("nan")}, "alpha"),
        ({"alpha": float("inf")}, "alpha"),
        ({"seconds": float("nan")}, "seconds"),
        ({"seconds": 10**6}, "seconds"),
        ({"dtype": "float8"}, "dtype"),
        ({"device": "cpu; rm -rf /"}, "device"),
        ({"mode": None}, "mode"),
        ({"variants": ["x"] * 41}, "variants"),
        ({"surprise": 1}, "surprise"),
        ({"sweep": {"axis": "time"}}, "sweep.axis"),
        ({"sweep": {"axis": "rank", "values": [0]}}, "sweep"),
        ({"sweep": {"axis": "rank", "values": []}}, "sweep"),
        ({"sweep": {"axis": "dtype", "values": [8]}}, "sweep"),
        ({"sweep": {"axis": "adapters"}}, "sweep"),
        ({"sweep": {"axis": "width", "values": list(range(100, 140))}}, "sweep.values"),
    ],
)
def test_what_is_out_of_range_is_named(body, field):
    with pytest.raises(InvalidInput) as caught:
        request_from(body)
    assert caught.value.field == field


def test_a_sweep_varies_one_axis_and_holds_the_others():
    base = {"rank": 4, "alpha": 8.0, "tokens": 3}
    for axis, name in (("tokens", "tokens"), ("adapters", "adapters"), ("dtype", "dtype")):
        base = {**base, "mode": "adapters"}
        points = request_from({**base, "sweep": {"axis": axis}}).points()
        assert [getattr(point, name) for point in points] == list(SWEEPS[axis])
        assert {point.model_copy(update={name: 1, "sweep": None}) for point in points} == {
            request_from(base).model_copy(update={name: 1})
        }
    wide = request_from({"sweep": {"axis": "width", "values": [64, 128, 64]}}).points()
    assert [(point.in_features, point.out_features) for point in wide] == [(64, 64), (128, 128)]
    ranks = request_from({**base, "sweep": {"axis": "rank"}}).points()
    assert {point.scaling for point in ranks} == {2.0}


def test_rows_of_a_mixed_batch_are_tokens_times_requests():
    assert request_from({"mode": "adapters", "tokens": 3, "requests": 5}).rows == 15
    assert request_from({"tokens": 3, "requests": 5}).rows == 3
