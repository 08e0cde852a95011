"""Where a model was found, as JSON. The API documents these very types."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from loralens.core.question.shapes import ModelSummary

Source = Literal["catalogue", "folder", "cache", "hub"]


class ResolvedModel(TypedDict):
    """Answer of /api/models/resolve."""

    source: Annotated[Source, "Where the model was found."]
    id: Annotated[str, "Catalogue id, name of the folder, or owner/name on the Hub."]
    model: ModelSummary
    config: Annotated[dict[str, object], "Its config.json, under the name by which it was found."]
    fetched_at: Annotated[str | None, "When it came from the Hub (ISO 8601); null if it did not."]
