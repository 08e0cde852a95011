"""`GET /api/system`: what this machine can do."""

from __future__ import annotations

from fastapi import APIRouter, Response

from loralens.api.answers import respond
from loralens.api.schemas import SystemAnswer
from loralens.host import system_answer

router = APIRouter(tags=["system"])


@router.get("/system", summary="Processor, memory, GPUs, packages", response_model=SystemAnswer)
def system() -> Response:
    """Devices that can run jobs. A machine without a GPU lists its CPU."""
    return respond(system_answer())
