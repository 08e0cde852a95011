"""`GET /api/system`: what this machine can do; `GET /api/lab`: whether PyTorch is there, or how far it is."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from loralens.api.answers import respond
from loralens.api.lab import lab_answer
from loralens.api.schemas import LabAnswer, SystemAnswer
from loralens.host import system_answer

router = APIRouter(tags=["system"])


@router.get("/system", summary="Processor, memory, GPUs, packages", response_model=SystemAnswer)
def system(request: Request) -> Response:
    """Devices that can run jobs. A machine without a GPU lists its CPU."""
    return respond({**system_answer(), "lab": lab_answer(request)})


@router.get("/lab", summary="Whether the lab is installed", response_model=LabAnswer)
def lab(request: Request) -> Response:
    """Benchmark, experiments and adapters need PyTorch, which ./start.sh installs behind the page; ask every second."""
    return respond(lab_answer(request))
