"""Means with confidence intervals, paired differences, and forgetting at equal learning. Plain Python."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from loralens.lab.forgetting.shapes import Scores, Spread

# Two-sided 95% quantiles of Student's t for 1..9 degrees of freedom. Source: Student 1908; any table.
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def spread(values: Sequence[float]) -> Spread:
    """Mean over seeds with its 95% confidence interval (Student's t) and whether all seeds agree in sign.

    With fewer than two values there is no interval: low and high are None.

    >>> spread([1.0, 2.0, 3.0])["mean"]
    2.0
    """
    count = len(values)
    mean = sum(values) / count
    low = high = None
    if count >= 2:
        deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (count - 1))
        half = T_95[min(count - 1, len(T_95)) - 1] * deviation / math.sqrt(count)
        low, high = mean - half, mean + half
    same_sign = all(v > 0 for v in values) or all(v < 0 for v in values)
    return {"mean": mean, "low": low, "high": high, "values": list(values), "same_sign": same_sign}


def old_loss_at(points: Sequence[Scores], new_loss: float) -> float | None:
    """Old-text loss of a run when its new-text loss first came down to `new_loss`, between points interpolated.

    Shapes: points in order of steps, the base's own at step 0 first.
    Returns: None when the run never got there.
    """
    for before, after in itertools.pairwise(points):
        high, low = before["new"]["loss"], after["new"]["loss"]
        if low <= new_loss <= high:
            share = (high - new_loss) / (high - low) if high > low else 0.0
            start, end = before["old"]["loss"], after["old"]["loss"]
            return start + share * (end - start)
    return None
