from __future__ import annotations

import pytest

from loralens.lab.forgetting.summary import at_equal_learning


def curve(*pairs: tuple[float, float]) -> list[dict[str, object]]:
    return [{"step": i, "old": {"loss": old}, "new": {"loss": new}} for i, (old, new) in enumerate(pairs)]


def test_an_arm_that_learned_little_is_compared_where_full_had_learned_as_little() -> None:
    """Full: 4 -> 5 old while 6 -> 4 new. The arm stopped at 5.5 with 4.1: full had 4.25 there."""
    full, arm = curve((4.0, 6.0), (5.0, 4.0)), curve((4.0, 6.0), (4.1, 5.5))
    assert at_equal_learning(arm, full) == pytest.approx(4.1 - 4.25)


def test_an_arm_that_learned_more_is_read_where_full_ended() -> None:
    full, arm = curve((4.0, 6.0), (5.0, 5.0)), curve((4.0, 6.0), (6.0, 4.0))
    assert at_equal_learning(arm, full) == pytest.approx(5.0 - 5.0)


def test_an_arm_that_only_got_worse_cannot_be_compared() -> None:
    full, arm = curve((4.0, 6.0), (5.0, 5.0)), curve((4.0, 6.0), (4.5, 6.5))
    assert at_equal_learning(arm, full) is None
