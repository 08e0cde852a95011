"""The server's one hub, as a dependency of the routes that need it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request

from loralens.core.errors import DependencyMissing

if TYPE_CHECKING:
    from loralens.lab.adapters.service import HubService


def hub_service(request: Request) -> HubService:
    """The server's hub; torch is imported with the first request that needs it."""
    state = request.app.state
    if not hasattr(state, "adapters"):
        try:
            from loralens.lab.adapters.service import HubService
        except ImportError as error:
            raise DependencyMissing(f"adapters need {error.name}", hint='pip install "loralens[lab]"') from None
        settings = state.settings
        state.adapters = HubService(settings.state_directory(), settings.adapters_dir, settings.models_dir)
    service: HubService = state.adapters
    return service


Service = Annotated[Any, Depends(hub_service)]
