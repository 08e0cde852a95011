"""Published speeds of generation: the document is the program's, and what was fitted is what the rates say."""

from pathlib import Path

import pytest

from loralens.core.time.rates import known
from loralens.validation.generation_report import FITS, GenerationRun, fitted, markdown, read

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def runs() -> list[GenerationRun]:
    return read((DOCS / "accuracy" / "generation-runs.jsonl").read_text(encoding="utf-8").splitlines())


def test_the_document_is_what_the_program_writes(runs: list[GenerationRun]) -> None:
    assert (DOCS / "accuracy-generation.md").read_text(encoding="utf-8") == markdown(runs), (
        "run: python -m loralens.validation.generation_report docs/accuracy"
    )


@pytest.mark.parametrize("engine", FITS)
def test_the_rates_are_those_that_the_runs_give(runs: list[GenerationRun], engine: str) -> None:
    rates, found = known().generation, fitted([run for run in runs if run.engine == engine], FITS[engine])
    assert found.engine_kernel_seconds == pytest.approx(rates.engine_kernel_seconds, rel=0.03)
    assert found.cache_passes_per_query == pytest.approx(rates.cache_passes_per_query, rel=0.25)


def test_speeds_are_predicted_and_in_their_order(runs: list[GenerationRun]) -> None:
    rates = known().generation
    errors = sorted(abs(run.error(rates)) for run in runs)
    assert errors[len(errors) // 2] < 0.12 and errors[int(0.9 * len(errors))] < 0.2
    pairs = [
        (one, other)
        for one in runs
        for other in runs
        if one.engine == other.engine and one.tokens_per_second > 1.1 * other.tokens_per_second
    ]
    ordered = sum(one.computed(rates) > other.computed(rates) for one, other in pairs)
    assert ordered >= 0.95 * len(pairs)
