"""Measured links: from times that a latency and a rate give, both are found again; what is kept can be read; time follows them."""

import json

import pytest

from loralens.core.answer.pace import pace_on
from loralens.core.catalogue import gpu
from loralens.core.errors import InvalidInput
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe
from loralens.core.time.links import with_measured_link
from loralens.core.time.measured_links import (
    KINDS,
    LinkRate,
    MeasuredLinks,
    TimedMessage,
    fitted,
    seconds_of_message,
)

TRUE = LinkRate(2e10, 1.5e-5)
SIZES = [2**power for power in range(10, 29, 3)]


def messages(members: int = 4) -> tuple[TimedMessage, ...]:
    return tuple(
        TimedMessage(kind, size, seconds_of_message(TRUE, kind, members, size)) for kind in KINDS for size in SIZES
    )


def links(members: int = 4) -> MeasuredLinks:
    rates = {kind: fitted(kind, members, messages(members)) for kind in KINDS}
    return MeasuredLinks(
        "NVIDIA A100-SXM4-80GB", "nccl", members, rates[KINDS[0]], rates[KINDS[1]], "2026-11-30", "torch", messages()
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("members", [2, 4, 8])
def test_the_fit_finds_what_made_the_times(kind: str, members: int) -> None:
    found = fitted(kind, members, messages(members))
    assert found.bytes_per_second == pytest.approx(TRUE.bytes_per_second)
    assert found.latency_seconds == pytest.approx(TRUE.latency_seconds)


def test_an_all_reduce_sends_twice_an_all_gather() -> None:
    still = LinkRate(1e9, 0.0)
    assert (
        seconds_of_message(still, "all_reduce", 4, 8000)
        == 2 * seconds_of_message(still, "all_gather", 4, 8000)
        == 1.2e-5
    )


def test_times_that_do_not_grow_give_a_rate_all_the_same() -> None:
    flat = [TimedMessage("all_reduce", size, 1e-3) for size in SIZES]
    found = fitted("all_reduce", 2, flat)
    assert found.bytes_per_second > 0 and found.latency_seconds >= 0


def test_what_is_kept_is_read_again() -> None:
    found = links()
    assert MeasuredLinks.read(json.loads(json.dumps(found.to_dict()))) == found
    for broken in ({}, {**found.to_dict(), "members": 1}, {**found.to_dict(), "all_gather": {"bytes_per_second": 1}}):
        with pytest.raises(InvalidInput):
            MeasuredLinks.read(broken)


def test_a_slower_link_takes_longer_in_proportion() -> None:
    recipe = Recipe.from_mapping({"parallelism": {"gpus": 4, "strategy": "ddp"}, "sequence_length": 512})
    taken = []
    for rate in (1e9, 1e8):
        found = pace_on(resolve("7B"), "full", recipe, with_measured_link(gpu("rtx-4090"), rate))
        assert found is not None
        assert any("as given or measured for this machine" in note for note in found.notes)
        taken.append(found.step.parts["communication"])
    assert taken[1] > 8 * taken[0]
    catalogue = pace_on(resolve("7B"), "full", recipe, gpu("rtx-4090"))
    assert catalogue is not None and catalogue.step.parts["communication"] < taken[0]
