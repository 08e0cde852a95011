"""`GET /api/watched`: trainings of this machine that `loralens.Watch` follows."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request
from pydantic import ValidationError

from loralens.api.shape import shape
from loralens.watched import WatchedBeat, WatchedRuns, watched_runs

router = APIRouter(tags=["system"])
_BEAT: Final = shape(WatchedBeat)


@router.get(
    "/watched", summary="Trainings that loralens.Watch follows on this machine", response_model=shape(WatchedRuns)
)
def watched(request: Request) -> WatchedRuns:
    """Computed beside measured, speed, and whether each still runs. They are those of the state folder of this server.

    On a server that several people use none is shown: a training belongs to whoever started it.
    """
    settings = request.app.state.settings
    if settings.is_shared():
        return {"runs": [], "unreadable": 0, "shown": False}
    return watched_runs(settings.state_directory(), _is_beat)


def _is_beat(found: Any) -> bool:
    try:
        _BEAT.model_validate(found, strict=True)
    except ValidationError:
        return False
    return True
