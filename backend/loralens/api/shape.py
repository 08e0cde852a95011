"""What the documented objects of the API share, and how the core's typed answers become such objects."""

from __future__ import annotations

from functools import cache, reduce
from keyword import iskeyword
from operator import or_
from types import UnionType
from typing import Annotated, Any, Final, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

from pydantic import BaseModel, ConfigDict, Field, create_model

from loralens.core.question.shapes import Pair, RecipeWords


class Documented(BaseModel):
    """A documented object: exactly these fields."""

    model_config = ConfigDict(extra="forbid")


class Recipe(BaseModel):
    """The complete recipe that was used, with every default. `openapi.components` writes its fields, from the table of words."""

    model_config = ConfigDict(extra="allow")  # the table's tests hold the fields; here they only pass


_OWN: Final[dict[Any, Any]] = {RecipeWords: Recipe, Pair: tuple[int, int]}


@cache
def shape(answer: Any) -> type[Documented]:
    """The documented object of a TypedDict: its fields with their texts, and so of every TypedDict inside.

    A text is what `Annotated` adds to a type. A field that may be left out (`NotRequired`) is one that may be null.
    """
    fields: dict[str, Any] = {}
    for name, hint in get_type_hints(answer, include_extras=True).items():
        required = get_origin(hint) is not NotRequired
        hint, text = _read(hint if required else get_args(hint)[0])
        typed = _documented(hint)
        more: dict[str, Any] = {"description": text} | ({"alias": name} if iskeyword(name) else {})
        fields[f"{name}_" if iskeyword(name) else name] = (
            (typed, Field(**more)) if required else (typed | None, Field(None, **more))
        )
    model: type[Documented] = create_model(answer.__name__, __base__=Documented, __doc__=answer.__doc__, **fields)
    return model


def _read(hint: Any) -> tuple[Any, str | None]:
    return get_args(hint) if get_origin(hint) is Annotated else (hint, None)


def _documented(hint: Any) -> Any:
    """The type with documented objects in place of TypedDicts."""
    if hint in _OWN:
        return _OWN[hint]
    if is_typeddict(hint):
        return shape(hint)
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return reduce(or_, (_documented(each) for each in inner))
    if origin in (list, dict, tuple):
        return origin[tuple(_documented(each) for each in inner)]
    return hint
