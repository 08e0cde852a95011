"""Bytes in sentences read as they do on the page: the cases of `frontend/src/shared/lib/lib.test.ts`."""

from __future__ import annotations

import pytest

from loralens.core.sizes import size_text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (512, "512 B"),
        (16_777_216, "16.0 MiB"),
        (24_031_176_456, "22.4 GiB"),
        (-3_730_833_408, "-3.47 GiB"),
        (1_103_806_595_072, "1,028 GiB"),
        (0.1 * 2**30, "0.10 GiB"),
    ],
)
def test_bytes_in_binary_units(size, text):
    assert size_text(size) == text
