"""Transfers among processes of this machine: every kind and size is timed, and what comes of it is read again."""

import pytest

from loralens.core.errors import DeviceUnavailable, InvalidInput
from loralens.core.time.measured_links import KINDS, MeasuredLinks
from loralens.lab.measure import links

SIZES = 1024, 65_536


def test_two_processes_exchange_tensors() -> None:
    *told, last = links.measure_links("cpu", 2, SIZES)
    found = MeasuredLinks.read(last["links"])  # type: ignore[arg-type]
    assert (found.device, found.backend, found.members) == ("cpu", "gloo", 2)
    assert [(row["kind"], row["bytes"]) for row in told] == [(kind, size) for kind in KINDS for size in SIZES]
    assert [row.seconds for row in found.messages] == [row["seconds"] for row in told]
    assert all(row.seconds > 0 for row in found.messages)


def test_processes_that_cannot_meet_are_a_missing_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links.sys, "executable", "/bin/false")
    with pytest.raises(DeviceUnavailable, match="could not exchange"):
        list(links.measure_links("cpu", 2))


def test_nobody_is_asked_for_where_there_is_one_device() -> None:
    assert links.members_of("cpu", None) == 1
    assert links.members_of("cpu", 3) == 3
    with pytest.raises(InvalidInput):
        links.members_of("cpu", 0)
    with pytest.raises((DeviceUnavailable, InvalidInput)):
        links.members_of("cuda", 65)
