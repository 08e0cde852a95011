"""Endpoints that need PyTorch wait for nothing: they say that the lab is not there yet, and how far it is."""

from __future__ import annotations

from fastapi import Depends, Request

from loralens.installation import state


def lab_answer(request: Request) -> dict[str, object]:
    """How far the lab is, by the server's settings."""
    settings = request.app.state.settings
    return state.answer(settings.state_directory(), wanted=settings.lab == "yes")


def require_lab(request: Request) -> None:
    """A dependency of routes that need the lab; raises `LabInstalling` or `DependencyMissing` (503 both)."""
    state.require(request.app.state.settings.state_directory())


NEEDS_LAB = [Depends(require_lab)]
