"""The server's one hub, as a dependency of the routes that need it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request

from loralens.installation import state as installation

if TYPE_CHECKING:
    from loralens.lab.adapters.service import HubService


def hub_service(request: Request) -> HubService:
    """The server's hub; torch is imported with the first request that needs it."""
    state = request.app.state
    settings = state.settings
    if not hasattr(state, "adapters"):
        installation.require(settings.state_directory())
        from loralens.lab.adapters.service import HubService

        state.adapters = HubService(settings.state_directory(), settings.adapters_dir, settings.models_dir)
    service: HubService = state.adapters
    return service


Service = Annotated[Any, Depends(hub_service)]
