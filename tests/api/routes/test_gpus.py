from __future__ import annotations

from api.checks import problem

from loralens.api.schemas import GpuRow, GpusAnswer


def test_all_gpus_have_the_documented_shape(client):
    answer = GpusAnswer.model_validate(client.get("/api/gpus").json())
    ids = [gpu.id for gpu in answer.gpus]
    assert "rtx-4090" in ids
    assert len(ids) == len(set(ids))
    assert all(gpu.sources for gpu in answer.gpus)


def test_one_gpu(client):
    gpu = GpuRow.model_validate(client.get("/api/gpus/rtx-4090").json())
    assert 23 * 2**30 < gpu.memory_bytes <= 24 * 2**30


def test_an_unknown_gpu_is_404(client):
    assert problem(client.get("/api/gpus/abacus"), 404)["code"] == "unknown_gpu"
