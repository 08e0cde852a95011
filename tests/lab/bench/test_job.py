import json

import pytest
import torch

from loralens.core.errors import DeviceUnavailable, InvalidInput
from loralens.lab.bench import job, point
from loralens.lab.bench.schema import BenchmarkResult, Point, Progress, Roofline, Skipped, Started
from loralens.lab.matmul.variants.dense import Dense
from loralens.lab.matmul.variants.lora import Addmm
from loralens.lab.matmul.variants.own import OwnTraining
from loralens.lab.words import SWEEPS

SMALL = {"in_features": 96, "out_features": 64, "tokens": 4, "seconds": 0.5, "cache": "hot"}
MODELS = {
    "started": Started, "progress": Progress, "roofline": Roofline, "point": Point, "skipped": Skipped,
    "result": BenchmarkResult,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    from loralens.lab.matmul import roofline

    monkeypatch.setitem(roofline.GEMM_SIZE, "cpu", 128)
    monkeypatch.setitem(roofline.READ_BYTES, "cpu", 2**22)


def run(**body):
    return list(job.run({**SMALL, "variants": ["addmm", "own", "merged"], **body}))


def data(event):
    return {name: value for name, value in event.items() if name != "type"}


@pytest.mark.parametrize("mode", ["forward", "training", "adapters"])
def test_a_run_tells_what_its_schema_promises(mode):
    events = run(mode=mode, variants=["addmm", "own", "stacked_mask"])
    kinds = [event["type"] for event in events]
    assert kinds.count("started") == kinds.count("result") == kinds.count("point") == 1
    assert kinds.index("started") < kinds.index("roofline") < kinds.index("point") < kinds.index("result")
    assert kinds[-1] == "result"
    for event in events:
        json.dumps(event, allow_nan=False)
        MODELS[event["type"]].model_validate(data(event))
    fractions = [event["fraction"] for event in events if event["type"] == "progress"]
    assert fractions == sorted(fractions) and fractions[-1] <= 1


def test_rows_hold_paired_raw_samples_and_the_noise_floor():
    result = run()[-1]
    (measured,) = result["points"]
    rows = {row["id"]: row for row in measured["rows"]}
    assert {"dense", "dense_again", "eager", "addmm", "own", "merged"} == set(rows)
    dense, addmm = rows["dense"], rows["addmm"]
    assert set(dense["ratio"]["samples"]) == {1.0}
    by_round = dict(zip(dense["rounds"], dense["seconds"]["samples"], strict=True))
    for at, seconds, ratio in zip(addmm["rounds"], addmm["seconds"]["samples"], addmm["ratio"]["samples"], strict=True):
        assert ratio == pytest.approx(seconds / by_round[at])
    assert measured["noise"] == rows["dense_again"]["ratio"]
    for row in rows.values():
        assert 0 < row["roofline_fraction"] <= 1 + 1e-9
        assert row["seconds"]["q1"] <= row["seconds"]["median"] <= row["seconds"]["q3"]
    assert rows["eager"]["error_ok"] and rows["addmm"]["error_ok"] and rows["own"]["error_ok"]
    assert (addmm["operations"], rows["eager"]["operations"]) == (3, 5)
    assert measured["recommendation"]["variant"] in {"eager", "addmm", "own"}


def test_the_times_follow_the_rank():
    points = run(sweep={"axis": "rank", "values": [1, 512]}, variants=["addmm"], in_features=512, out_features=512)
    first, last = points[-1]["points"]
    flops = [next(row["flops"] for row in item["rows"] if row["id"] == "addmm") for item in (first, last)]
    assert flops[1] - flops[0] == 2 * 4 * 511 * (512 + 512)
    assert (first["value"], last["value"]) == (1, 512)


def test_a_sweep_streams_points_and_says_what_it_skips():
    events = run(sweep={"axis": "tokens", "values": [1, 2, 8192]}, in_features=1024, out_features=1024, seconds=0.5)
    started = next(event for event in events if event["type"] == "started")
    skipped = [data(event) for event in events if event["type"] == "skipped"]
    assert [item["value"] for item in started["points"] if not item["planned"]] == [item["value"] for item in skipped]
    assert skipped[-1]["value"] == 8192 and "needs about" in skipped[-1]["reason"]
    assert events[-1]["skipped"] == skipped


@pytest.mark.parametrize(
    ("axis", "mode", "values"),
    [
        ("rank", "forward", None),
        ("width", "training", [48, 96]),
        ("tokens", "forward", [1, 3, 9]),
        ("dtype", "forward", None),
        ("dtype", "adapters", None),
        ("adapters", "adapters", None),
    ],
)
def test_every_axis_measures_each_value_or_says_why_not(axis, mode, values):
    events = run(sweep={"axis": axis, "values": values}, mode=mode, variants=["addmm", "stacked_mask"], seconds=1)
    result, started = events[-1], next(event for event in events if event["type"] == "started")
    seen = [point["value"] for point in result["points"]] + [point["value"] for point in result["skipped"]]
    assert set(seen) == {point["value"] for point in started["points"]} == set(values or SWEEPS[axis])
    assert started["budget_seconds"] == 1 and all(point["predicted_seconds"] > 0 for point in started["points"])
    assert all(len(point["reason"]) > 10 for point in result["skipped"])
    assert [point["value"] for point in result["points"]] == [e["value"] for e in events if e["type"] == "point"]
    for item in result["points"]:
        assert item["settings"].get(axis, item["settings"]["in_features"]) == item["value"]


def test_running_out_of_memory_skips_a_point_of_a_sweep_and_fails_a_run_of_one(monkeypatch):
    measure = point.measure

    def failing(request, *rest):
        if request.rank == 2:
            torch.empty(2**60)
        return measure(request, *rest)

    monkeypatch.setattr(point, "measure", failing)
    events = run(sweep={"axis": "rank", "values": [1, 2, 3]})
    assert [item["value"] for item in events[-1]["points"]] == [1, 3]
    (skipped,) = events[-1]["skipped"]
    assert (skipped["value"], skipped["reason"]) == (2, "the device ran out of memory at this point")
    assert skipped["remark"]["code"] == "out_of_memory"
    with pytest.raises(RuntimeError, match="memory"):
        run(rank=2)


def test_numbers_that_are_not_finite_are_shown_as_a_failed_error_bound(monkeypatch):
    monkeypatch.setattr(
        Addmm, "__call__", lambda self, index: self.problem.x @ self.problem.weight(index).t() * torch.nan
    )
    rows = {row["id"]: row for row in run()[-1]["points"][0]["rows"]}
    assert rows["addmm"]["error"] is None and rows["addmm"]["error_ok"] is False
    assert run()[-1]["points"][0]["recommendation"]["variant"] != "addmm"


def test_gradients_are_bounded_like_outputs(monkeypatch):
    about = {"mode": "training", "dtype": "bfloat16", "in_features": 256, "out_features": 256, "tokens": 64}
    rows = {row["id"]: row for row in run(variants=["own"], **about)[-1]["points"][0]["rows"]}
    for name in ("eager", "own"):
        row = rows[name]
        assert set(row["gradient_limits"]) == {"dx", "da", "db"} and row["error_ok"]
        assert row["gradient_limits"] == pytest.approx(
            {key: 1.05 * value for key, value in rows["eager"]["gradient_errors"].items()}
        )
    assert not rows["dense"].get("gradient_limits")
    right = OwnTraining.gradients
    monkeypatch.setattr(OwnTraining, "gradients", lambda self: right(self) | {"da": 1.01 * right(self)["da"]})
    rows = {row["id"]: row for row in run(variants=["own"], **about)[-1]["points"][0]["rows"]}
    assert rows["own"]["error"] <= rows["own"]["error_limit"] and not rows["own"]["error_ok"]


def test_a_wrong_result_is_never_recommended(monkeypatch):
    monkeypatch.setattr(Addmm, "__call__", Dense.__call__)
    measured = run()[-1]["points"][0]
    assert not next(row for row in measured["rows"] if row["id"] == "addmm")["error_ok"]
    assert measured["recommendation"]["variant"] != "addmm"


def test_a_variant_that_fails_says_why_and_the_others_run(monkeypatch):
    def fail(self):
        raise RuntimeError("no kernel for these sizes")

    monkeypatch.setattr(Addmm, "prepare", fail)
    rows = {row["id"]: row for row in run()[-1]["points"][0]["rows"]}
    assert rows["addmm"]["reason"] == "RuntimeError: no kernel for these sizes" and not rows["addmm"]["available"]
    assert rows["own"]["available"]


def test_what_takes_long_to_prepare_is_left_out_of_short_runs_unless_named():
    rows = {row["id"]: row for row in run(variants=None)[-1]["points"][0]["rows"]}
    assert "ask for it by name" in rows["compiled"]["reason"]
    assert not rows["triton_split"]["available"] or torch.cuda.is_available()


def test_the_next_job_of_the_process_finds_its_threads_again():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run(threads=1)
        assert torch.get_num_threads() == 2
        stopped = job.run({**SMALL, "threads": 1})
        while next(stopped)["type"] != "started":
            assert not torch.is_inference_mode_enabled()
        stopped.close()
        assert torch.get_num_threads() == 2 and not torch.is_inference_mode_enabled()
    finally:
        torch.set_num_threads(before)


def test_a_bad_request_is_refused_before_anything_runs():
    with pytest.raises(InvalidInput):
        next(job.run({"rank": 0}))


def test_a_dtype_that_is_not_in_this_processor_is_skipped_and_refused_alone(monkeypatch):
    reason = "this processor has no float16 arithmetic"
    monkeypatch.setattr(Dense, "why_not", classmethod(lambda _, p: reason if p.dtype is torch.float16 else None))
    result = run(sweep={"axis": "dtype", "values": ["float32", "float16"]})[-1]
    assert [item["value"] for item in result["points"]] == ["float32"]
    (skipped,) = result["skipped"]
    assert (skipped["value"], skipped["remark"]["code"]) == ("float16", "no_float16") and reason in skipped["reason"]
    with pytest.raises(DeviceUnavailable, match=reason):
        run(dtype="float16")


def test_a_run_that_overran_its_budget_still_says_how_long_it_takes():
    clock = job._Clock(10.0)
    clock.elapsed = lambda: 4.0
    assert clock.progress(0.2, 0, 5, "")["eta_seconds"] == pytest.approx(6.0)
    clock.elapsed = lambda: 30.0
    assert clock.progress(0.5, 2, 5, "")["eta_seconds"] == pytest.approx(30.0)
    assert clock.progress(1.0, 4, 5, "")["eta_seconds"] == 0
