from __future__ import annotations

from api.checks import problem

from loralens.api.shape import shape
from loralens.core.answer.listing_shapes import GpusAnswer
from loralens.core.catalogue.shapes import GpuRow


def test_all_gpus_have_the_documented_shape(client):
    answer = shape(GpusAnswer).model_validate(client.get("/api/gpus").json())
    ids = [gpu.id for gpu in answer.gpus]
    assert "rtx-4090" in ids
    assert len(ids) == len(set(ids))
    assert all(gpu.sources for gpu in answer.gpus)


def test_one_gpu(client):
    gpu = shape(GpuRow).model_validate(client.get("/api/gpus/rtx-4090").json())
    assert 23 * 2**30 < gpu.memory_bytes <= 24 * 2**30


def test_an_unknown_gpu_is_404(client):
    assert problem(client.get("/api/gpus/abacus"), 404)["code"] == "unknown_gpu"


def test_a_gpu_of_ones_own_is_read_wherever_a_name_is(client):
    gpu = shape(GpuRow).model_validate(client.get("/api/gpus/custom:24GiB,1008GB/s,name=实验室").json())
    assert (gpu.name, gpu.memory_bytes, gpu.memory_bandwidth_bytes_per_second) == ("实验室", 24 * 2**30, 1008 * 10**9)
    assert gpu.dense_flops_per_second == {"bfloat16": None, "float16": None}
    fits = client.get("/api/memory", params={"model": "7B", "gpu": gpu.id}).json()["estimates"][0]["fits"]
    assert [fit["gpu"] for fit in fits] == [gpu.id]


def test_an_own_gpu_that_cannot_be_read_is_422(client):
    refused = problem(client.get("/api/gpus/custom:24XB"), 422)
    assert (refused["code"], refused["field"]) == ("invalid_input", "gpu")
