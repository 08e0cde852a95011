"""What an answer says about its question, as JSON. The API documents these very types."""

from __future__ import annotations

from typing import Annotated, Any, NewType, NotRequired, TypedDict

RecipeWords = NewType("RecipeWords", dict[str, Any])
"""The complete recipe that was used, with every default; its fields are the table of words (`question.recipe`)."""


Pair = NewType("Pair", list[int])
"""Two integers, from and to. A list: JSON knows no tuples."""


class ModelSummary(TypedDict):
    """Which model an answer is about."""

    id: Annotated[str, "Catalogue id, or `custom` for a config.json of your own."]
    name: str
    family: Annotated[str, "`model_type` of the config."]
    parameters: Annotated[int, "Exact count; tied weights count once."]
    left_out: Annotated[
        list[str],
        "What the config has and the count has not (a vision tower), in sentences; empty for a language model.",
    ]
    read_as: NotRequired[
        Annotated[
            list[str], "How a name that the catalogue does not have was understood; absent where it has the name."
        ]
    ]
