"""Published speeds: the page is what the code says now, the constants are what the runs give, and both stay as good as they are."""

import json
from pathlib import Path

import numpy as np
import pytest

from loralens.core.time.rates import DATA
from loralens.validation import time_report
from loralens.validation.time_scores import FEW_TOKENS, judge_times, ordered, over_nvlink
from loralens.validation.timed_runs import read_written

DOCS = Path(__file__).parents[2] / "docs"
AGAIN = "regenerate: python -m loralens.validation.time_report docs/accuracy"


@pytest.fixture(scope="module")
def runs():
    return read_written((DOCS / "accuracy" / time_report.WORK).read_text(encoding="utf-8").splitlines())


def test_recorded_work_is_what_the_walk_counts(runs):
    for walked in time_report.read_folder(DOCS / "accuracy", every=17):
        assert walked in runs, f"{walked.id}: {AGAIN}"


@pytest.fixture(scope="module")
def judged(runs):
    return judge_times(runs)


def test_page_is_up_to_date(judged, runs):
    assert time_report.page(judged, runs) == (DOCS / "accuracy-time.md").read_text(encoding="utf-8"), AGAIN


def test_constants_are_what_all_runs_give(judged, runs):
    written = json.loads(DATA.read_text(encoding="utf-8"))
    found = time_report.rates(judged, runs, written)
    for part in ("constants", "shares"):
        assert {name: row["value"] for name, row in found[part].items()} == pytest.approx(
            {name: row["value"] for name, row in written[part].items()}, rel=0.02
        ), AGAIN
    assert all(row["source"] and row["meaning"] for row in written["constants"].values())


def figures(judged, seconds, wanted):
    errors = np.abs(judged.errors(seconds, judged.chosen(wanted)))
    return 100 * np.median(errors), 100 * np.quantile(errors, 0.9)


@pytest.mark.parametrize(
    ("left_out", "wanted", "median", "p90"),
    [
        ("half", lambda run: run.gpus == 1, 6.5, 20),
        ("half", lambda run: run.gpus == 1 and run.length_known, 6, 18),
        ("half", lambda run: run.gpus > 1 and over_nvlink(run), 6, 17),
        ("half", lambda run: run.several_machines, 6, 20),
        ("half", lambda run: run.cut, 6, 25),
        ("half", lambda run: run.gpus > 1 and not over_nvlink(run), 8, 60),
        ("machine", lambda run: run.tokens >= FEW_TOKENS, 8, 32),
        ("machine", lambda run: True, 10, 38),
        ("card", lambda run: True, 15, 40),
    ],
)
def test_speeds_stay_as_good_as_they_are(judged, left_out, wanted, median, p90):
    found = figures(judged, getattr(judged, left_out), wanted)
    assert found[0] <= median
    assert found[1] <= p90


def test_the_faster_run_is_computed_faster(judged):
    assert ordered(judged)[0] > 0.95


def test_the_band_holds_about_four_of_five(judged):
    """That of cards without runs counts cards alike, and A100s, of which most runs are, lie within it nearly all."""
    for row in time_report.bands(judged).values():
        assert 0.75 <= row["held"] <= 0.92
