"""A typed answer of the core becomes a documented object: the fields, texts and types are written once."""

from __future__ import annotations

from typing import Annotated, NotRequired, TypedDict

import pytest
from pydantic import ValidationError

from loralens.api.shape import shape
from loralens.core.question.shapes import Pair


class Inner(TypedDict):
    """Something inside."""

    band: Annotated[Pair, "From and to."]


From = TypedDict("From", {"from": str})


class Outer(From):
    """Something."""

    rows: list[Inner]
    one: Inner | None
    more: NotRequired[Annotated[int, "May be left out."]]


def test_fields_texts_and_types_are_those_of_the_typed_answer():
    schema = shape(Outer).model_json_schema()
    assert schema["description"] == "Something."
    assert schema["required"] == ["from", "rows", "one"]
    assert schema["properties"]["rows"]["items"] == {"$ref": "#/$defs/Inner"}
    assert schema["properties"]["one"]["anyOf"] == [{"$ref": "#/$defs/Inner"}, {"type": "null"}]
    assert schema["properties"]["more"]["description"] == "May be left out."
    band = schema["$defs"]["Inner"]["properties"]["band"]
    assert (band["description"], band["minItems"], band["maxItems"]) == ("From and to.", 2, 2)


def test_an_answer_that_the_type_does_not_allow_is_refused():
    good = {"from": "a", "rows": [{"band": [1, 2]}], "one": None}
    shape(Outer).model_validate(good)
    for wrong in ({"other": 1}, {"one": 3}, {"rows": [{"band": [1]}]}):
        with pytest.raises(ValidationError):
            shape(Outer).model_validate(good | wrong)
