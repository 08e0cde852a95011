"""`/api/gpus`: the accelerators that are known by name."""

from __future__ import annotations

from fastapi import APIRouter, Response

from loralens.api.answers import respond
from loralens.api.problems import documented
from loralens.api.shape import shape
from loralens.core.answer.listing_shapes import GpusAnswer
from loralens.core.answer.listings import gpu_answer, gpus_answer
from loralens.core.catalogue.shapes import GpuRow

router = APIRouter(tags=["catalogue"])


@router.get("/gpus", summary="All GPUs of the catalogue", response_model=shape(GpusAnswer))
def gpus() -> Response:
    """Memory, rates and prices, each with its source; null means not known."""
    return respond(gpus_answer())


@router.get("/gpus/{id:path}", summary="One GPU", response_model=shape(GpuRow), responses=documented(404, 422))
def gpu(id: str) -> Response:
    """By id or alias, or your own: `custom:24GiB,1008GB/s,165TFLOP/s,name=My card` (only the memory is needed)."""
    return respond(gpu_answer(id))
