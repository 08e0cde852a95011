"""The lessons as notebooks: what is written down is the scripts' own code, and it runs and says what the scripts say."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

LESSONS = Path(__file__).parents[2] / "code" / "part2"
SCRIPTS = sorted(LESSONS.glob("[0-9]*.py"))
Lesson = Callable[..., str]


@pytest.fixture(scope="module")
def notebooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notebooks", LESSONS / "notebooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["notebooks"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_notebooks_are_the_scripts(notebooks: ModuleType, script: Path, language: str) -> None:
    """After a change of a script: `make notebooks`."""
    kept = json.loads((LESSONS / "notebooks" / f"{script.stem}.{language}.ipynb").read_text("utf-8"))
    cells = notebooks.cells(script.read_text("utf-8"), language)
    assert ["".join(row["source"]) for row in kept["cells"]] == [cell.text for cell in cells]
    assert [row["cell_type"] == "code" for row in kept["cells"]] == [cell.code for cell in cells]
    outputs = [output for row in kept["cells"] for output in row.get("outputs", [])]
    assert sum(output["output_type"] == "stream" for output in outputs) >= 4, "its output is recorded"
    assert str(LESSONS.parents[1]) not in json.dumps(kept)


def test_a_cell_with_a_picture_keeps_it(notebooks: ModuleType) -> None:
    kept = json.loads((LESSONS / "notebooks" / "03_parameter_comparison.en.ipynb").read_text("utf-8"))
    (output,) = kept["cells"][-1]["outputs"]
    assert output["data"]["image/png"].startswith("iVBORw0KGgo")


OPTIONS = {
    "01_full_finetuning_problems": ["--tasks", "3"],
    "02_lora_mechanism": ["--width", "64", "--steps", "20"],
    "03_parameter_comparison": ["--model", "7B", "--output", "own.png"],
    "04_lora_adapters_demo": ["--preset", "test"],
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_says_what_the_script_says(
    notebooks: ModuleType,
    lesson: Lesson,
    quick_forgetting: None,
    hubs: Path,
    script: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LORALENS_STATE_DIR", str(hubs))
    options = [*OPTIONS[script.stem], "--lang", "en"]
    monkeypatch.chdir(LESSONS / "notebooks")
    if "--output" in options:
        options[options.index("--output") + 1] = str(tmp_path / "own.png")
    outputs = notebooks.run_cells(notebooks.cells(script.read_text("utf-8"), "en"), options)
    said = "".join("".join(output["text"]) for cell in outputs for output in cell if "text" in output)
    printed = lesson(script.name, *options)
    if script.stem.startswith("04"):
        # Its times differ from run to run.
        assert "6 different outputs from six adapters" in said and "six models" in said
        return
    plain = [line for line in printed.splitlines() if line and not line.startswith("─")]
    assert [line for line in said.splitlines() if line] == [
        line for line in plain if not line[:2].rstrip(".").isdigit()
    ]
