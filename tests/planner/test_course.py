"""The ledger: every printed figure has a row, its exact value is the core's, and the document is up to date."""

import re
from pathlib import Path

import pytest

from loralens.core.answer.answers import memory_answer, parameters_answer
from loralens.planner import textbook
from loralens.planner.course import course_answer
from loralens.planner.course_markdown import markdown
from loralens.planner.course_verdicts import OF_KIND

ROWS = {row["id"]: row for row in course_answer()["rows"]}
PARAMETERS = 6_738_415_616
BASE = 2 * PARAMETERS  # bytes on disk in bfloat16
FILE = 4 * 2_097_152  # bytes of an adapter on q_proj in float32

EXACT = {
    "full-weights-26": 4 * PARAMETERS,
    "full-gradients-26": 4 * PARAMETERS,
    "lora-own-0.04": 16 * 2_097_152,
    "adapter-7b": 2_097_152,
    "adapter-13b": 40 * 2 * 5120 * 8,
    "adapter-70b": 80 * 2 * 8192 * 8,
    "fewer-7b": PARAMETERS / 2_097_152,
    "fewer-13b": 13_015_864_320 / 3_276_800,
    "fewer-70b": 68_976_648_192 / 10_485_760,
    "share-0.03": 100 * 2_097_152 / (PARAMETERS + 2_097_152),
    "adapter-file-4": FILE,
    "storage-3250x": BASE / FILE,
    "storage-10-full": 10 * BASE,
    "storage-10-lora": BASE + 10 * FILE,
    "storage-10-saved": 100 * (1 - (BASE + 10 * FILE) / (10 * BASE)),
    "storage-6-full": 6 * BASE,
    "storage-6-lora": BASE + 6 * FILE,
    "storage-6-saved": 100 * (1 - (BASE + 6 * FILE) / (6 * BASE)),
    "storage-6-saved-gb": 6 * BASE - BASE - 6 * FILE,
    "square-16384": 16_384,
    "square-1.5625": 1.5625,
}
"""From the published architecture alone: layers, widths, counts."""


@pytest.mark.parametrize("figure", textbook.figures(), ids=lambda figure: figure.id)
def test_every_printed_figure_has_a_row_with_its_rule_and_a_verdict(figure: textbook.Figure) -> None:
    row = ROWS[figure.id]
    assert row["printed"] == figure.printed
    assert row["is_reproduced"] == (figure.id != "faster-100x")
    if row["is_reproduced"]:
        assert row["reproduced"] == row["printed_value"]
    assert row["verdict"] in OF_KIND
    for language in ("zh", "en"):
        text = row["text"][language]
        assert row["exact"]["text"][language] in text
        assert "{" not in text
    assert row["exact"]["regime"]
    if row["exact"]["value"] is None:
        assert row["exact"]["basis"] == "not measured"


@pytest.mark.parametrize(("id_", "expected"), EXACT.items())
def test_the_exact_value_follows_from_the_published_architecture(id_: str, expected: float) -> None:
    assert ROWS[id_]["exact"]["value"] == pytest.approx(expected, rel=1e-12)


def test_peaks_are_the_ones_that_the_api_answers() -> None:
    full, lora, _ = memory_answer({"model": "7B", "recipe": {"gradient_checkpointing": False}})["estimates"]
    assert ROWS["full-98"]["exact"]["value"] == full["peak"]["allocated_bytes"]
    assert ROWS["lora-26"]["exact"]["value"] == lora["peak"]["allocated_bytes"]
    assert ROWS["lora-weights-13"]["exact"]["value"] == lora["breakdown"]["weights_bytes"]
    ratio = full["peak"]["allocated_bytes"] / lora["peak"]["allocated_bytes"]
    assert ROWS["memory-3.8x"]["exact"]["value"] == ratio
    assert ROWS["saved-73.5"]["exact"]["value"] == pytest.approx(100 - 100 / ratio)


def test_float32_figures_are_those_of_the_float32_regime() -> None:
    body = {
        "model": "7B",
        "method": "full",
        "recipe": {"weights_dtype": "float32", "autocast": None, "gradient_checkpointing": False},
    }
    (wide,) = memory_answer(body)["estimates"]
    assert ROWS["full-total-117"]["exact"]["value"] == wide["peak"]["allocated_bytes"]
    assert ROWS["full-optimizer-52"]["exact"]["value"] == wide["breakdown"]["optimizer_state_bytes"]
    # two float32 moments each, and a float32 step counter per tensor
    tensors = sum(row["count"] for row in parameters_answer({"model": "7B", "method": "full"})["tensors"])
    assert wide["breakdown"]["optimizer_state_bytes"] == 8 * PARAMETERS + 4 * tensors


def test_activations_are_proportional_to_the_batch() -> None:
    row = ROWS["full-activations-13"]["exact"]
    assert f"{row['value'] / 2**30:.2f} GiB" in row["text"]["en"]
    assert f"{4 * row['value'] / 2**30:.1f}"[:4] in row["text"]["en"]


def test_the_chinese_texts_leave_only_names_in_latin_letters() -> None:
    names = r"GPU|Llama|LoRA|AdamW（fused）|q_proj|[bf]p?f?(?:loat)?(?:16|32)|autocast|[GM]i?B|[\d.]+e9|[AP]\b|A100|80GB|[\d.]+ ?B"
    for row in ROWS.values():
        for text in (row["formula_text"]["zh"], row["substituted_text"]["zh"], row["exact"]["regime_text"]["zh"]):
            ours = re.sub(names, "", text.partition("RunPod")[0])
            assert not re.search(r"[A-Za-z]{2}", ours), text


def test_time_and_money_name_their_assumptions_and_the_price() -> None:
    assert ROWS["hours-17500"]["exact"]["value"] == pytest.approx(6 * 17.5e9 * 15_360_000 / (0.4 * 312e12) / 3600)
    assert "assumed" in ROWS["hours-17500"]["exact"]["regime"]
    assert "USD per GPU hour" in ROWS["dollars-1.75m"]["exact"]["regime"]


def test_the_document_is_what_the_ledger_says_today() -> None:
    document = Path(__file__).parents[2] / "docs" / "course-numbers.md"
    assert document.read_text(encoding="utf-8") == markdown(), (
        "run: PYTHONPATH=backend python -m loralens.planner.course_markdown docs/course-numbers.md"
    )
