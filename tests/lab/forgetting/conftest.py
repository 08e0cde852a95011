from __future__ import annotations

from collections.abc import Iterator

import pytest

from loralens.lab.tiny.train import one_thread


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Models of a few thousand parameters only wait for each other on two threads."""
    with one_thread():
        yield
