"""What the documented objects of the API share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Shape(BaseModel):
    """A documented object: exactly these fields."""

    model_config = ConfigDict(extra="forbid")


class Recipe(BaseModel):
    """The complete recipe that was used, with every default. `openapi.components` writes its fields, from the table of words."""

    model_config = ConfigDict(extra="allow")  # the table's tests hold the fields; here they only pass
