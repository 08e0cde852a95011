"""`GET /api/health`: the process is up."""

from __future__ import annotations

from fastapi import APIRouter

import loralens
from loralens.api.schemas import HealthAnswer

router = APIRouter(tags=["system"])


@router.get("/health", summary="Is the server up")
def health() -> HealthAnswer:
    """Answers at once and computes nothing; for health checks."""
    return HealthAnswer(status="ok", version=loralens.__version__)
