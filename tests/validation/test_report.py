"""Published runs: the table in docs/accuracy.md is what the code says now, and it stays as good as it is."""

import json
import statistics
from pathlib import Path

import pytest

from loralens.core.errors import InvalidInput
from loralens.validation import bands, report
from loralens.validation.rows import judge, read_rows

DOCS = Path(__file__).parents[2] / "docs"
RUNS = DOCS / "accuracy" / "published-runs.jsonl"


@pytest.fixture(scope="module")
def outcomes():
    return [judge(row) for row in read_rows(RUNS.read_text(encoding="utf-8").splitlines())]


def chosen(outcomes, **wanted):
    found = [o for o in outcomes if o.estimate is not None]
    for name, values in wanted.items():
        if name == "strategy":
            found = [o for o in found if o.row.data["recipe"]["parallelism"]["strategy"] in values]
        elif name == "confidence":
            found = [o for o in found if o.row.data["confidence"] in values]
        else:
            found = [o for o in found if getattr(o.row, name) in values]
    return found


def test_page_is_up_to_date(outcomes):
    page = (DOCS / "accuracy.md").read_text(encoding="utf-8")
    again = report.markdown(outcomes, RUNS.name)
    assert page == again, (
        "regenerate: loralens validate docs/accuracy/published-runs.jsonl --markdown > docs/accuracy.md"
    )
    assert "not explained" not in page


def errors_of(outcomes, **wanted):
    return sorted(abs(o.error) for o in chosen(outcomes, metric=("allocated",), confidence=("high",), **wanted))


@pytest.mark.parametrize(
    ("stack", "strategy", "least", "median", "p90", "worst"),
    [
        ("huggingface", "none", 32, 0.000_1, 0.000_4, 0.021),
        ("huggingface", "fsdp", 37, 0.004, 0.022, 0.023),
        ("litgpt", "none", 8, 0.002, 0.006, 0.006),
        ("litgpt", "fsdp", 5, 0.045, 0.128, 0.128),  # upper bounds: see the page
        ("torchtune", "none", 12, 0.023, 0.126, 0.207),
        ("plain loop", "none", 11, 0.003, 0.006, 0.01),
        ("gpt_bigcode", "none", 8, 0.03, 0.21, 0.21),
        ("gpt_bigcode", "fsdp", 8, 0.03, 0.21, 0.21),
    ],
)
def test_allocated_peaks_stay_as_good_as_they_are(outcomes, stack, strategy, least, median, p90, worst):
    errors = errors_of(outcomes, stack=(stack,), strategy=(strategy,))
    assert len(errors) >= least
    assert statistics.median(errors) <= median
    assert errors[min(len(errors) - 1, int(0.9 * len(errors)))] <= p90
    assert errors[-1] <= worst


def test_torchtunes_ladder_of_techniques(outcomes):
    """Packing, compiling, chunking, checkpointing, stepping in backward, offloading: each rung within 1.5 %."""
    rungs = [
        f"torchtune-32-3b-f{n}" for n in ("1-packed", "2-compile", "3-chunkedce", "4-ac", "5-optinbwd", "6-actoffload")
    ]
    found = {o.row.id: o.error for o in outcomes if o.row.id in rungs}
    assert len(found) == len(rungs)
    assert max(abs(error) for error in found.values()) <= 0.015


def test_upper_bounds_are_called_so(outcomes):
    above = [o for o in outcomes if o.row.upper_bound and o.row.metric == "allocated"]
    assert above
    assert all(o.error > 0 and "upper bound" in report.reason(o) for o in above)


def test_deepspeed_rows_lie_in_their_bands(outcomes):
    banded = chosen(outcomes, metric=("unclear",), strategy=("zero2", "zero3"))
    assert len(banded) == 24
    assert sum(o.inside for o in banded) >= 20
    two = chosen(outcomes, metric=("unclear",), strategy=("zero2",))
    assert statistics.median(abs(o.error) for o in two) <= 0.1


def test_corrected_words_say_why(outcomes):
    """The correction stands in the row's recipe; beside it what the publisher states, and why that is not it."""
    found = 0
    for outcome in outcomes:
        for note in outcome.row.data.get("corrected", []):
            value: object = outcome.row.data["recipe"]
            for name in note["field"].split("."):
                value = value[name]
            assert value != note["stated"]
            assert len(note["source"]) > 40
            found += 1
    assert found >= 38


@pytest.fixture(scope="module")
def calibrations(outcomes):
    return bands.calibrate(outcomes)


def test_bands_hold_the_rows(outcomes):
    banded = chosen(outcomes, metric=("reserved", "device", "unclear"))
    assert len(banded) >= 80
    assert sum(o.inside for o in banded) / len(banded) >= 0.85


def test_bands_hold_rows_that_had_no_part_in_them(calibrations):
    assert len(calibrations) == len(bands.FORMS)
    for one in calibrations:
        assert one.rows >= 50
        assert one.printed.inside >= 0.85
        assert one.without_row.inside >= 0.85
        # what several GPUs show is not foretold from other publishers' runs: docs/accuracy.md says so
        if "several" not in one.form.figure:
            assert one.without_source.inside >= 0.85


def test_printed_ends_are_those_of_the_rows(calibrations):
    for one in calibrations:
        for end in (0, 2):
            assert abs(one.ends[end] - one.form.printed[end]) <= 6, one.form


def test_the_simulated_pool_makes_every_band_narrower(calibrations):
    width = {(one.form.figure, one.form.stands_on): one.printed.width for one in calibrations}
    for figure in {figure for figure, _ in width}:
        assert width[figure, "the simulated pool"] <= 0.8 * width[figure, "the allocated peak (rule)"]


def test_the_simulated_allocator_accounts_for_the_last_bytes(outcomes):
    """Blocks of 512 bytes and unsplit rests: nearer to `max_memory_allocated` than the exact sum, where that is exact."""
    apart = {}
    for o in chosen(outcomes, metric=("device",), stack=("huggingface",), strategy=("none",), confidence=("high",)):
        measured = next(row for row in outcomes if row.row.id == o.row.id.removesuffix(" on the device"))
        error = measured.error
        if abs(error) < 5e-5:
            apart[o.row.id] = (abs(error), abs(o.blocks_bytes / measured.row.measured_bytes - 1))
    assert len(apart) >= 15
    assert statistics.median(after for _, after in apart.values()) < statistics.median(
        before for before, _ in apart.values()
    )


def test_workspaces_of_the_card_are_counted(outcomes):
    first = chosen(outcomes, metric=("allocated",), stack=("huggingface",))[0]
    assert first.predicted_bytes - first.estimate.allocated_bytes == 2 * 8_519_680


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("not json", "runs"),
        ("[1]", "runs"),
        (json.dumps({"recipe": {}}), "peak_bytes"),
        (json.dumps({"recipe": {}, "peak_bytes": True}), "peak_bytes"),
        (json.dumps({"recipe": 3, "peak_bytes": 5}), "recipe"),
    ],
)
def test_malformed_rows_are_refused(line, field):
    with pytest.raises(InvalidInput) as caught:
        read_rows([line])
    assert caught.value.field == field


def test_rows_that_cannot_be_estimated_say_why():
    row = {"id": "x", "model": "no-such-model", "method": "lora", "recipe": {}, "metric": "allocated", "peak_bytes": 1}
    outcome = judge(read_rows([json.dumps(row)])[0])
    assert outcome.estimate is None
    assert "no-such-model" in outcome.refused
    assert report.as_json([outcome])["rows"][0]["predicted_bytes"] is None
