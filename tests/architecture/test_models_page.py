"""docs/models.md lists every model type with the evidence that there is."""

from __future__ import annotations

import zlib

import pytest
from architecture.models_page import PAGE, measured, page, parts, traced, walked_whole, written

from loralens.core.architecture.nested import TALKS
from loralens.core.architecture.registry import FAMILIES, families

CASES = traced()
AGAIN = sorted(name for name in CASES if zlib.crc32(name.encode()) % 12 == 0 and len(CASES[name]) < 20)


def test_the_page_is_what_the_registry_and_the_recorded_steps_say() -> None:
    said = written()
    assert {name: evidence.cases for name, evidence in said.items()} == {
        name: len(cases) for name, cases in CASES.items()
    }
    assert PAGE.read_text(encoding="utf-8") == page(said), "make docs"


@pytest.mark.parametrize("name", AGAIN)
def test_errors_are_those_of_today(name: str) -> None:
    assert measured(CASES[name]) == written()[name], "make docs"


def test_few_walked_types_have_no_traced_steps() -> None:
    """Their counts are compared all the same."""
    places = {FAMILIES[name] for name in (*CASES, *parts()) if name in FAMILIES}
    without = {name for name, walked in families().items() if walked and FAMILIES[name] not in places}
    assert without <= {"cohere", "gpt_bigcode", "qwen", "stablelm"}


def test_every_whole_multimodal_model_has_traced_steps() -> None:
    assert set(walked_whole()) <= {*CASES, *TALKS}
