"""Twelve traced rows of every walked model type: full, LoRA on all linear layers, QLoRA, checkpointing or not, two shapes each.

tests/oracles/traced-cells.jsonl holds what no other file of traced steps has of them, and is written by
`python -m loralens.lab.trace.cells tests/oracles`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loralens.core.answer.estimate import estimate_model
from loralens.core.architecture.registry import MEDIA, text_config
from loralens.core.errors import LoraLensError
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe
from loralens.lab.trace import coverage

CASES, LINES = coverage.recorded(Path(__file__).parents[2] / "oracles")
# without rows of their own
WITHOUT = {
    "diffusion_gemma": "counted: transformers has no loss for it",
    "qwen": "its code is on the Hub alone, and nobody has told it anew",
}
# Each phase's peak to a hundredth of a percent, but for
WIDER = {
    "deepseek_v3": 2e-4,  # adapters on 256 experts at full width: 16 of 111,274 MB more than traced, for no known reason
    "gemma3n": 3e-4,  # a moment within timm's tower: 3 of 11,795 MB more, for no known reason
}
# The forward pass alone, which is no peak of a step: copies of leaves that checkpointed post-norm layers leave in autocast's
# cache, routers' small tables, one state of a scan, and a hidden state of mT5
FORWARD = {
    **dict.fromkeys(("exaone4", "minimax", "olmo2", "olmo3", "falcon_mamba", "mamba", "step3p7"), 3e-3),
    **dict.fromkeys(("jamba", "mt5"), 1e-3),
    **dict.fromkeys(("afmoe", "deepseek_v32", "exaone_moe", "glm_moe_dsa", "qwen3_next"), 3e-4),
}


def answer(request: dict[str, Any]) -> Any:
    return estimate_model(resolve(config=request["config"]), request["method"], Recipe.from_mapping(request["recipe"]))


def parts() -> Iterator[str]:
    """Language models that run within a whole one, whose rows count for them."""
    for name, cases in CASES.items():
        for case in cases:
            if name in MEDIA:
                yield text_config(case["request"]["config"]).text("model_type", "")


def test_every_walked_type_has_its_rows() -> None:
    exempt = {*WITHOUT, *(set(parts()) - set(LINES))}
    lacking = {
        name: [cell for cell, points in coverage.covered(name, CASES.get(name, []), LINES.get(name)).items()
               if len(points) < coverage.POINTS and cell not in coverage.refused(LINES.get(name))]
        for name in coverage.wanted()
        if name not in exempt
    }  # fmt: skip
    assert {name: cells for name, cells in lacking.items() if cells} == {}, (
        "python -m loralens.lab.trace.cells tests/oracles TYPE"
    )


@pytest.mark.parametrize("name", sorted(LINES))
def test_counts_phase_and_peak_are_the_traced_ones(name: str) -> None:
    for case in coverage.unfold(LINES[name]):
        request, label = case["request"], case["name"]
        if "refused" in case:
            with pytest.raises(LoraLensError):
                answer(request)
            continue
        own, expected = answer(request), case["expected"]
        assert (own.total_parameters, own.trainable_parameters) == (expected["total"], expected["trainable"]), label
        assert own.phase == expected["phase"], label
        usual = WIDER.get(name, 1e-4)
        for phase, peak in expected["phase_peaks"].items():
            wide = FORWARD.get(name, usual) if phase == "forward" != expected["phase"] else usual
            assert own.phases[phase] == pytest.approx(peak, rel=wide), (label, phase)
