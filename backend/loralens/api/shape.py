"""What the documented objects of the API share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Shape(BaseModel):
    """A documented object: exactly these fields."""

    model_config = ConfigDict(extra="forbid")


class Recipe(Shape):
    """The complete recipe that was used, with every default. `openapi.components` writes its fields, from the table of words."""
