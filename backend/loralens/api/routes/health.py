"""`GET /api/health`: the process is up."""

from __future__ import annotations

from fastapi import APIRouter

import loralens
from loralens.api.schemas import HealthAnswer

router = APIRouter(tags=["system"])


@router.get("/health", summary="Is the server up")
async def health() -> HealthAnswer:
    """Answers at once and computes nothing, on no thread that other requests could keep; for health checks."""
    return HealthAnswer(status="ok", version=loralens.__version__)
