"""Recorded answers are given again, to the byte; `make replay` shows what differs where they are not."""

from __future__ import annotations

import pytest
from replay import recorded
from replay.cases import every_case, is_quick
from replay.differences import differences
from replay.trees import ROOT, Asked, catalogue


def test_answers_are_the_recorded_ones() -> None:
    """After a deliberate change: `make replay-record`, and the diff of the file goes into the same commit."""
    cases = [case for case in every_case(catalogue()) if is_quick(case["name"])]
    given = recorded.lines(Asked(ROOT, cases, published=False).answers())
    known = recorded.read()
    compared = given.keys() & known.keys()
    assert len(compared) > 200
    assert {name: (known[name], given[name]) for name in compared if given[name] != known[name]} == {}


def test_every_case_is_recorded() -> None:
    """Only a new model may wait for the next `make replay-record`; what is recorded is still asked."""
    asked = {case["name"] for case in every_case(catalogue())}
    kept = {name for name in recorded.read() if not name.startswith("published/")}
    assert kept - asked == set()
    assert {name for name in asked - kept if not name.startswith(("catalogue/", "plan/", "parameters/"))} == set()


def test_a_difference_is_shown_with_its_field_and_share() -> None:
    before = {"a": {"phase": "forward", "allocated": 1000, "old": 1}, "b": {"allocated": 5}}
    after = {"a": {"phase": "backward", "allocated": 1010, "new": 2}, "b": {"refused": "invalid_input gpus"}}
    shown = [(row.case, row.field, row.before, row.after) for row in differences(before, after)]
    assert shown == [
        ("a", "phase", "forward", "backward"),
        ("b", "refused", "answered", "invalid_input gpus"),
        ("a", "allocated", 1000, 1010),
    ]
    assert differences(before, after)[2].percent == pytest.approx(1.0)


def test_one_byte_changes_a_recorded_line() -> None:
    found = {"phase": "forward", "forward": 1, "backward": 2, "optimizer": 3, "total": 4, "trainable": 5, "logits": 6}
    assert recorded.line("x", found).startswith("x\tforward\t1\t2\t3\t4\t5\t#")
    assert recorded.line("x", found) != recorded.line("x", {**found, "logits": 7})
