"""docs/models.md: every model type with its evidence, written from the registry and the traced steps.

`python -m tests.architecture.models_page` writes it anew (it answers every traced case, half a minute); `make docs` does too.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from loralens.core.answer.estimate import estimate_model
from loralens.core.architecture.nested import TALKS
from loralens.core.architecture.registry import FAMILIES, MEDIA, families, text_config
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe
from loralens.lab.trace import coverage

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "models.md"
ORACLES = ROOT / "tests" / "oracles"
ROWS = len(coverage.CELLS) * coverage.POINTS
HEAD = """\
# Models

Every model type that LoRA Lens knows by name, from the registry (`core/architecture/registry.py`). **Walked**: the training step is
computed operator by operator. **Counted**: parameters and adapters are exact, and memory is refused. For these, and for every type
that is not here, `loralens trace --plan` makes an answer of traces, where transformers can build the model. The evidence is traced steps
of the real transformers model (tests/oracles): how many, and how far the computed peak is from the traced one. Counts and the
phase of the peak are equal in all of them. Where a walked type has no traced steps, the code of another type that has is named,
or it says so.

**Grid**: how many of twelve rows are traced: full, LoRA on all linear layers and QLoRA, with checkpointing and without, at two
batches and lengths each (`lab/trace/coverage.py`). What the real libraries refuse is no row. Other traced steps are beside the grid:
optimizers, padding, other targets, dtypes.

Hybrids (state-space and linear-attention layers) are walked, and traced, as transformers' own PyTorch code runs them, without
flash-linear-attention, mamba-ssm and causal-conv1d; each answer says so. With `mixer_kernels=fused` the gated delta rule, Mamba 2 and short
convolutions are walked as those packages run them: what they keep is read in their code and not traced. Mamba 1 and Kimi's delta
attention are refused there.

Families whose code lies beside their weights (`trust_remote_code`) are walked as that code reads, and traced as a retelling of it
in torch runs (`lab/trace/hub`): the code itself is never fetched or run.

| model type | step | grid | traced steps | median error | largest error | written after |
| --- | --- | --: | --: | --: | --: | --- |
"""

WHOLE = """
## Multimodal models, whole

Walked with tower and projector, frozen or trained, and traced with the shapes that the processors make. Of any other multimodal
model the language part is walked where its type stands above, and the answer names the tower that it leaves out. Of a model whose
code is not in transformers the last column names the code; it is traced as told anew in `lab/trace/hub`, and each answer says so.

| model type | grid | traced steps | median error | largest error | written after |
| --- | --: | --: | --: | --: | --- |
"""

REFUSED = """
## What the real libraries refuse of the grid

Rows that transformers, PEFT and torch do not run, in their words; the engine refuses them too. Where `all-linear` fails on a type,
its rows name its layers.

| model type | what | what they say |
| --- | --- | --- |
"""


class Evidence(NamedTuple):
    """What the traced steps say of a model type."""

    cases: int
    median: str
    worst: str


def traced() -> dict[str, list[dict[str, Any]]]:
    """The recorded cases with a result, by the model type that is walked; those with towers by the whole model's."""
    found, lines = coverage.recorded(ORACLES)
    for name, line in lines.items():
        found[name] += [case for case in coverage.unfold(line) if "expected" in case]
    return found


def grids() -> dict[str, str]:
    """How many rows of the grid each type has."""
    found, lines = coverage.recorded(ORACLES)
    return {name: _grid(name, found.get(name, []), lines.get(name)) for name in {*found, *lines}}


def _grid(name: str, cases: list[dict[str, Any]], line: dict[str, Any] | None) -> str:
    rows = sum(min(coverage.POINTS, len(points)) for points in coverage.covered(name, cases, line).values())
    return f"{rows} of {ROWS - coverage.POINTS * len(coverage.refused(line))}"


def parts() -> dict[str, set[str]]:
    """The types of language models that are traced as a part of whole ones, which are named."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, cases in coverage.recorded(ORACLES)[0].items():
        for case in cases if name in MEDIA else ():
            found[text_config(case["request"]["config"]).text("model_type", "")].add(name)
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
    return Evidence(len(cases), f"{100 * statistics.median(errors):.4f}%", f"{100 * max(errors):.4f}%")


def page(evidence: dict[str, Evidence]) -> str:
    """The whole document."""
    within, rows = parts(), grids()
    texts = [row(name, walked, rows, evidence, within.get(name, set())) for name, walked in families().items()]
    wholes = [whole(name, rows, evidence.get(name)) for name in walked_whole()]
    return HEAD + "".join(texts) + WHOLE + "".join(wholes) + REFUSED + "".join(refusals())


def refusals() -> Iterator[str]:
    """The lines of the third table."""
    for name, line in sorted(coverage.recorded(ORACLES)[1].items()):
        said = defaultdict(list)
        for (method, checkpointing), reason in coverage.refused(line).items():
            said[reason].append(f"{method}{' with checkpointing' if checkpointing else ''}")
        if "because" in line:
            said[line["because"]].append("all-linear")
        for reason, cells in said.items():
            yield f"| {name} | {', '.join(cells)} | {reason.replace('|', ' ').strip()} |\n"


def walked_whole() -> list[str]:
    """Multimodal types but those whose language model is only counted (DiffusionGemma, for which there is no loss)."""
    return [name for name in sorted(MEDIA) if families().get(f"{name}_text", True)]


def whole(name: str, grid: dict[str, str], found: Evidence | None) -> str:
    """One line of the second table."""
    sources = dict.fromkeys(written_after(place.split(":")[0]) for place in MEDIA[name].split())
    cells = found or ("", "", "")
    thinker = [f"traced as {name}_thinker, the part that trains"] if name in TALKS else []
    return f"| {name} | {grid.get(name, '')} | {' | '.join(map(str, cells))} | {'; '.join([*thinker, *sources])} |\n"


def written_after(module: str) -> str:
    """The source that a family's file names."""
    about = (import_module(f"loralens.core.architecture.families.{module}").__doc__ or "").split("Source:")
    return " ".join(about[1].split("\n\n")[0].split()).rstrip(".") if len(about) > 1 else ""


def row(name: str, walked: bool, grid: dict[str, str], evidence: dict[str, Evidence], within: set[str]) -> str:
    """One line of the table. `within`: whole models of which it is a traced part."""
    like = [
        other for other, place in FAMILIES.items() if place == FAMILIES[name] and other in evidence and other != name
    ]
    found = evidence.get(name)
    source = written_after(FAMILIES[name].split(":")[0])
    if found is None and walked:
        whole = f"traced as a part of {', '.join(sorted(within))}" if within else "no traced step"
        source = f"{f'the code of {like[0]}' if like else whole}; {source}"
    cells = (found.cases, found.median, found.worst) if found else ("", "", "")
    step = "walked" if walked else "counted"
    return f"| {name} | {step} | {grid.get(name, '')} | {' | '.join(map(str, cells))} | {source} |\n"


def written() -> dict[str, Evidence]:
    """What the page says now."""
    found = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        first = len(cells) - 4  # the last column names the source
        if first in (2, 3) and cells[first].isdigit():
            found[cells[0]] = Evidence(int(cells[first]), cells[first + 1], cells[first + 2])
    return found


if __name__ == "__main__":
    PAGE.write_text(page({name: measured(cases) for name, cases in traced().items()}), encoding="utf-8")
