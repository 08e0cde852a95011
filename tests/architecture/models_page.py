"""docs/models.md: every model type with its evidence, written from the registry and the traced steps.

`python -m tests.architecture.models_page` writes it anew (it answers every traced case, half a minute); `make docs` does too.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from loralens.core.answer.estimate import estimate_model
from loralens.core.architecture.registry import FAMILIES, families, text_config
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "models.md"
ORACLES = ("traced-grid", "traced-more", "traced-models", "traced-text", "traced-steps")
HEAD = """\
# Models

Every model type that LoRA Lens knows by name, from the registry (`core/architecture/registry.py`). **Walked**: the training step is
computed operator by operator. **Counted**: parameters and adapters are exact, and memory is refused. The evidence is traced steps
of the real transformers model (tests/oracles): how many, and how far the computed peak is from the traced one. Counts and the
phase of the peak are equal in all of them. Where a walked type has no traced steps, the code of another type that has is named,
or it says so.

Hybrids (state-space and linear-attention layers) are walked, and traced, as transformers' own PyTorch code runs them, without
flash-linear-attention, mamba-ssm and causal-conv1d; their fused kernels keep less, and each answer says so. For a multimodal
model see what its answer says of the towers.

| model type | step | traced steps | median error | largest error | written after |
| --- | --- | --: | --: | --: | --- |
"""


class Evidence(NamedTuple):
    """What the traced steps say of a model type."""

    cases: int
    median: str
    worst: str


def traced() -> dict[str, list[dict[str, Any]]]:
    """The recorded cases with a result, by the model type that is walked."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for file in ORACLES:
        for line in (ROOT / "tests" / "oracles" / f"{file}.jsonl").read_text(encoding="utf-8").splitlines():
            case = json.loads(line)
            if "expected" in case:
                found[text_config(case["request"]["config"]).text("model_type", "")].append(case)
    return found


def measured(cases: list[dict[str, Any]]) -> Evidence:
    """Answers every case of a type."""
    errors = []
    for case in cases:
        request = case["request"]
        own = estimate_model(
            resolve(config=request["config"]), request["method"], Recipe.from_mapping(request["recipe"])
        )
        errors.append(abs(own.allocated_bytes / case["expected"]["peak_allocated_bytes"] - 1))
    return Evidence(len(cases), f"{100 * statistics.median(errors):.4f} %", f"{100 * max(errors):.4f} %")


def page(evidence: dict[str, Evidence]) -> str:
    """The whole document."""
    return HEAD + "".join(row(name, walked, evidence) for name, walked in families().items())


def row(name: str, walked: bool, evidence: dict[str, Evidence]) -> str:
    """One line of the table."""
    module = FAMILIES[name].split(":")[0]
    like = [
        other for other, place in FAMILIES.items() if place == FAMILIES[name] and other in evidence and other != name
    ]
    found = evidence.get(name)
    about = (import_module(f"loralens.core.architecture.families.{module}").__doc__ or "").split("Source:")
    source = " ".join(about[1].split("\n\n")[0].split()).rstrip(".") if len(about) > 1 else ""
    if found is None and walked:
        source = f"{f'the code of {like[0]}' if like else 'no traced step'}; {source}"
    cells = (found.cases, found.median, found.worst) if found else ("", "", "")
    return f"| {name} | {'walked' if walked else 'counted'} | {' | '.join(map(str, cells))} | {source} |\n"


def written() -> dict[str, Evidence]:
    """What the page says now."""
    found = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[2].isdigit():
            found[cells[0]] = Evidence(int(cells[2]), cells[3], cells[4])
    return found


if __name__ == "__main__":
    PAGE.write_text(page({name: measured(cases) for name, cases in traced().items()}), encoding="utf-8")
