"""Situations that people reported in public: each can be asked, or is refused by the name of what is missing.

`tests/oracles/reports.jsonl` holds the request, what was observed, and what is assumed where a report leaves a word open. A
figure lies inside the band that the answer states for its kind; where a run died, no answer says that it fits.
"""

import json
from pathlib import Path

import pytest

from loralens.core.answer.answers import memory_answer, parameters_answer
from loralens.core.errors import LoraLensError
from loralens.planner.fit import fit_answer

ORACLES = Path(__file__).parents[1] / "oracles"
ROWS = [json.loads(line) for line in (ORACLES / "reports.jsonl").read_text().splitlines()]
ANSWERS = {"/api/memory": memory_answer, "/api/parameters": parameters_answer, "/api/fit": fit_answer}
UNITS = {"GiB": 2**30, "GB": 10**9}


def test_there_are_as_many_as_were_collected():
    assert len(ROWS) == len({row["name"] for row in ROWS}) == 42
    assert all(row["source"] and row["situation"] and row["observed"] for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_what_was_reported(row):
    if row["expects"] == "refused":
        field, word = row["refused"]
        with pytest.raises(LoraLensError, match=word) as refused:
            ANSWERS[row["path"]](row["body"])
        assert refused.value.field == field
    else:
        EXPECTED[row["expects"]](ANSWERS[row["path"]](row["body"]), row["observed"])


def band(answer, observed, name):
    """A whole number was rounded."""
    low, high = answer["estimates"][0]["peak"][f"{name}_band_bytes"]
    unit, value = UNITS[observed["unit"]], observed["value"]
    half = 0.5 if value == int(value) else 0.05
    assert low / unit - half <= value <= high / unit + half


def allocated(answer, observed):
    found = answer["estimates"][0]["peak"]["allocated_bytes"] / UNITS[observed["unit"]]
    assert found == pytest.approx(observed["value"], rel=0.02)


def at_least(answer, observed):
    assert answer["estimates"][0]["peak"]["allocated_bytes"] <= observed["value"] * UNITS[observed["unit"]]


def died(answer, observed):
    assert answer["estimates"][0]["fits"][0]["verdict"] != "fits"


def fits(answer, observed):
    assert answer["estimates"][0]["fits"][0]["verdict"] == "fits"


def trainable(answer, observed):
    assert answer["parameters"]["trainable"] == observed["value"]


def adapter_file(answer, observed):
    (own,) = (row for row in answer["by_rank"] if row["rank"] == 16)
    assert own["adapter_file_bytes"] == pytest.approx(observed["value"] * UNITS[observed["unit"]], rel=0.02)


def seconds(answer, observed):
    found = answer["time"]["step_seconds"]
    assert found["low"] <= observed["value"] <= found["high"]


def slower(answer, observed):
    """The one in five that a band of 80 % leaves out; its row says what is known about it."""
    assert answer["time"]["step_seconds"]["high"] < observed["value"] < 1.25 * answer["time"]["step_seconds"]["high"]


def host(answer, observed):
    """What was there is less than what is safe, so nothing is said to fit."""
    (found,) = answer["estimates"]
    most = max(row["host_bytes"][1] for row in found["moments"])
    assert most >= observed["value"] * UNITS[observed["unit"]]
    assert found["fits"][0]["verdict"] != "fits"


EXPECTED = {
    "allocated": allocated,
    "reserved": lambda answer, observed: band(answer, observed, "reserved"),
    "device": lambda answer, observed: band(answer, observed, "device"),
    "at_least": at_least,
    "died": died,
    "fits": fits,
    "trainable": trainable,
    "adapter_file": adapter_file,
    "seconds": seconds,
    "slower": slower,
    "host": host,
}
