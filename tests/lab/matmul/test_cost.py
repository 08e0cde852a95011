import pytest
import torch

from loralens.lab.matmul import packed
from loralens.lab.matmul.catalogue import VARIANTS
from loralens.lab.matmul.cost import FORMS, choose

SIZES = {"in_features": 4096, "out_features": 4096, "rank": 8}


def test_every_form_is_a_variant():
    known = {(info.mode, info.id) for info in VARIANTS}
    assert {(mode, name) for mode, forms in FORMS.items() for name in forms} <= known


def test_a_gpu_gets_no_packing_and_few_passes():
    for rows in (1, 512, 8192):
        assert choose("forward", kind="cuda", dtype=torch.bfloat16, rows=rows, **SIZES) == "addmm"
    every = {"eager", "addmm", "graph_addmm", "triton_split"}
    many = choose("forward", kind="cuda", dtype=torch.bfloat16, rows=8192, available=every, **SIZES)
    assert many == "triton_split"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cpu_packs_large_weights_where_it_can(dtype):
    if reason := packed.why_not(dtype):
        pytest.skip(reason)
    for rows in (1, 16, 128, 512):
        assert choose("forward", kind="cpu", dtype=dtype, rows=rows, **SIZES).startswith("packed")


def test_stacking_gives_way_when_its_columns_grow_too_many():
    def form(adapters, rank):
        sizes = {**SIZES, "rank": rank}
        return choose(
            "adapters", kind="cuda", dtype=torch.bfloat16, rows=2048, adapters=adapters,
            available={"stacked_mask", "gather_bmm"}, **sizes,
        )  # fmt: skip

    assert form(6, 8) == "stacked_mask"
    assert form(64, 512) == "gather_bmm"
