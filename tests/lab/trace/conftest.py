from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_card():
    """These tests trace in their own process, as the product does only where torch sees no card."""
    from loralens.lab.trace import cuda_on_cpu

    if cuda_on_cpu.card_is_visible():
        pytest.skip("torch sees a card: CUDA_VISIBLE_DEVICES= python -m pytest tests/lab/trace")
