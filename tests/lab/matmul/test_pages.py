import sys

import pytest
import torch

from loralens.lab.matmul import pages
from loralens.lab.matmul.packed import PackedWeight, why_not
from loralens.lab.matmul.pages import HUGE_BYTES, use_huge_pages


def test_a_buffer_without_a_whole_huge_page_is_left_alone():
    assert use_huge_pages(HUGE_BYTES + 1, 2 * HUGE_BYTES - 2) is False
    assert use_huge_pages(HUGE_BYTES, 4096) is False


def test_only_whole_pages_inside_the_buffer_are_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(pages, "_madvise", lambda: lambda *given: asked.append(given) or 0)
    assert use_huge_pages(HUGE_BYTES + 1, 3 * HUGE_BYTES)
    assert {(begin, size) for begin, size, _ in asked} == {(2 * HUGE_BYTES, 2 * HUGE_BYTES)}


def test_a_system_that_refuses_is_no_error(monkeypatch):
    monkeypatch.setattr(pages, "_madvise", lambda: lambda *given: -1)
    assert use_huge_pages(0, 4 * HUGE_BYTES) is False
    monkeypatch.setattr(pages, "_madvise", lambda: None)
    assert use_huge_pages(0, 4 * HUGE_BYTES) is False


@pytest.mark.skipif(sys.platform != "linux", reason="huge pages are asked for on Linux")
def test_the_product_of_a_large_packed_weight_is_the_same():
    if reason := why_not(torch.float32):
        pytest.skip(reason)
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(2048, 1024, generator=generator), torch.randn(2, 1024, generator=generator)
    packed = PackedWeight(weight)
    exact = x.double() @ weight.double().t()
    assert (packed(x).double() - exact).norm() / exact.norm() < 1e-6
    assert packed.huge_pages in (True, False)
