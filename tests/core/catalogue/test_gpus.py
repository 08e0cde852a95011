"""The catalogue of GPUs: integers, sources, and assumptions that call themselves assumptions."""

import json

import pytest

from loralens.core.catalogue import MARKETS, gpu, gpus
from loralens.core.errors import UnknownGpu


@pytest.mark.parametrize(
    ("name", "expected"),
    [("rtx-4090", "rtx-4090"), ("RTX 4090", "rtx-4090"), ("rtx4090", "rtx-4090"), ("4090", "rtx-4090"),
     ("A100", "a100-sxm4-80"), ("GeForce RTX 3090", "rtx-3090"), ("h200", "h200-sxm"),
     ("NVIDIA A100-SXM4-80GB", "a100-sxm4-80"), ("NVIDIA H100 80GB HBM3", "h100-sxm"), ("a100 40gb", "a100-sxm4-40"),
     ("NVIDIA GeForce RTX 4090", "rtx-4090"), ("4090 24GB", "rtx-4090"), ("NVIDIA L4", "l4")],
)  # fmt: skip
def test_a_gpu_is_found_by_the_names_people_use(name: str, expected: str) -> None:
    assert gpu(name).id == expected


@pytest.mark.parametrize(
    "name", ["", "voodoo-2", "4090 48GB", "NVIDIA GeForce RTX 4090 Laptop GPU", "x" * 10_000, None]
)
def test_a_gpu_that_is_not_in_the_catalogue_is_refused(name: object) -> None:
    with pytest.raises(UnknownGpu) as caught:
        gpu(name)  # type: ignore[arg-type]
    assert caught.value.field == "gpu"


def test_the_hint_names_what_was_probably_meant() -> None:
    with pytest.raises(UnknownGpu) as caught:
        gpu("rtx-4900")
    assert "rtx-4090" in (caught.value.hint or "")


def test_memory_is_what_the_driver_prints() -> None:
    assert gpu("rtx-4090").memory_bytes == 24_564 * 2**20
    assert gpu("rtx-4090").marketing_memory_gb == 24
    assert gpu("h200").memory_bytes == 143_771 * 2**20


def test_every_gpu_has_sources_and_says_what_is_assumed() -> None:
    assert len(gpus()) >= 85
    for entry in gpus():
        assert entry.sources
        assert isinstance(entry.memory_bytes, int)
        # No figure may be above the box, which counts in binary units at most.
        assert 0.6 * entry.marketing_memory_gb * 10**9 < entry.memory_bytes <= entry.marketing_memory_gb * 2**30 * 1.02
        assert entry.memory_basis.startswith(("driver", "assumed: "))
        assert bool(entry.achievable_flops_per_second) == bool(entry.achievable_source)
        for dtype, rate in entry.achievable_flops_per_second.items():
            peak = entry.dense_flops_per_second[dtype]
            assert peak is not None
            assert 0.3 * peak < rate < peak
        for price in entry.prices:
            assert price.usd_per_gpu_hour > 0 and price.source and price.date and price.provider
        order = [(MARKETS.index(price.market), price.usd_per_gpu_hour) for price in entry.prices]
        assert order == sorted(order)
        json.dumps(entry.to_dict())


def test_each_name_means_one_gpu() -> None:
    names = [name.casefold() for entry in gpus() for name in {entry.id, entry.name.casefold(), *entry.aliases}]
    assert len(names) == len(set(names))


def test_the_shared_rows_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        gpu("a100").dense_flops_per_second["bfloat16"] = 1  # type: ignore[index]
