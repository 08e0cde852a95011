"""A phase's parts add up to its peak, and the fullest phase's are the answer's own breakdown."""

import pytest

from loralens.core.answer.estimate import estimate
from loralens.planner.phases import phase_breakdowns


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_parts_add_up_to_the_peak_of_each_phase(method: str) -> None:
    found = estimate("7B", method=method)
    parts = phase_breakdowns(found)
    assert {phase: sum(sizes.values()) for phase, sizes in parts.items()} == found.phases
    assert parts[found.phase] == found.breakdown


def test_full_fine_tuning_holds_activations_in_forward_and_gradients_at_the_end_of_backward() -> None:
    parts = phase_breakdowns(estimate("7B", method="full", gradient_checkpointing=False))
    assert parts["forward"]["activations_bytes"] > 2**33 > parts["backward"]["activations_bytes"]
    assert parts["forward"]["gradients_bytes"] == 0 < parts["optimizer"]["gradients_bytes"]
