"""What a planner's answer says of the words that were asked, as lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.cli.render import wrapped

if TYPE_CHECKING:
    from loralens.planner.shapes import FitAnswer, PlansAnswer


def show_remarks(answer: FitAnswer | PlansAnswer) -> None:
    """Print the words that change nothing, then each remark."""
    if answer["without_effect"]:
        said = (f"{', '.join(row['words'])} ({row['reason']})" for row in answer["without_effect"])
        wrapped(f"without effect: {'; '.join(said)}")
    for remark in answer["remarks"]:
        wrapped(f"note: {remark}")
