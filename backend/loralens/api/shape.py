"""What the documented objects of the API share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Shape(BaseModel):
    """A documented object: exactly these fields."""

    model_config = ConfigDict(extra="forbid")
