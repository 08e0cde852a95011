"""The four lessons: they run, they say what they measured, and their numbers are the API's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from loralens.core.answer.answers import memory_answer, parameters_answer

LESSONS = Path(__file__).parents[2] / "code" / "part2"
MODELS = ("7B", "13B", "30B", "qwen2.5-7b", "llama-3.2-1b")
RANKS = (1, 8, 64)
Lesson = Callable[..., str]


def gib(size: int) -> str:
    return f"{size / 2**30:.2f}"


def cells(line: str) -> list[str]:
    """The cells of a line of a printed table."""
    return re.split(r"\s{2,}", line.strip())


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("model", MODELS)
def test_lesson_1_prints_the_numbers_of_the_api(lesson: Lesson, quick_forgetting: None, model: str, rank: int) -> None:
    out = lesson("01_full_finetuning_problems.py", "--model", model, "--rank", rank, "--lang", "en", "--tasks", 7)
    full, lora = memory_answer({"model": model, "methods": ["full", "lora"], "recipe": {"lora": {"rank": rank}}})[
        "estimates"
    ]
    total = next(cells(line) for line in out.splitlines() if line.strip().startswith("total"))
    assert total[1:] == [gib(phase["peak_bytes"]) for phase in full["phases"]]
    assert (
        f"Peak {gib(full['peak']['allocated_bytes'])} GiB; LoRA needs {gib(lora['peak']['allocated_bytes'])} GiB" in out
    )
    base, adapter = full["storage"]["checkpoint_bytes"], lora["storage"]["adapter_file_bytes"]
    assert f"7 × {gib(base)} = {gib(7 * base)} GiB" in out
    assert f"= {gib(base + 7 * adapter)} GiB" in out


def test_lesson_1_says_what_was_measured_and_where_the_price_comes_from(
    lesson: Lesson, quick_forgetting: None, tiny_experiment: list[dict[str, object]]
) -> None:
    out = lesson("01_full_finetuning_problems.py")
    result = tiny_experiment[-1]
    for finding in result["findings"]:  # type: ignore[attr-defined]
        assert finding["zh"] in out
    for arm in result["summary"]["arms"]:  # type: ignore[index]
        name = {"full": "全量微调", "mixed": "全量微调，混入旧文本", "linear": "只训练线性层（不限秩）"}.get(
            arm["arm"], ".+"
        )
        assert re.search(rf"{name}\s+{re.escape(format(arm['forgetting_nats']['mean'], '+.2f'))}", out)
    assert re.search(r"USD/h  \[https://\S+ ?", out)


def test_lesson_1_leaves_an_unknown_price_and_rate_unknown(lesson: Lesson, quick_forgetting: None) -> None:
    out = lesson("01_full_finetuning_problems.py", "--gpu", "p100", "--lang", "en")
    assert "at least unknown hours, expected unknown" in out
    assert "no price is known" in out


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("model", MODELS)
def test_lesson_2_prints_the_counts_of_the_api(lesson: Lesson, model: str, rank: int) -> None:
    out = lesson("02_lora_mechanism.py", "--model", model, "--rank", rank, "--width", 64, "--steps", 1, "--lang", "en")
    counts = parameters_answer({"model": model, "method": "lora", "recipe": {"lora": {"rank": rank}}})["parameters"]
    assert f"{counts['trainable']:,} of {counts['total']:,} parameters are trainable" in out
    assert f"{2 * 64 * rank:,} together: {100 * 2 * rank / 64:.4f}%" in out


def test_lesson_2_proves_what_it_says(lesson: Lesson) -> None:
    out = lesson("02_lora_mechanism.py", "--width", 128, "--steps", 150, "--lang", "en")
    assert "Outputs equal bit for bit: True" in out
    assert "W.grad = None" in out
    assert "|A.grad| = 0.00e+00" in out
    assert "unchanged: True" in out
    exact = re.search(r"in float32, (\S+) in float64", out)
    assert exact and float(exact[1]) < 1e-12
    start, end = map(float, re.search(r"Loss: (\S+) → (\S+)", out).groups())  # type: ignore[union-attr]
    assert end < start / 100
    assert "Rank of the ΔW that was learned = 8 (r = 8)" in out
    near = re.search(r"relative error of (\S+)\. Try", out)
    assert near and float(near[1]) < 0.1


def test_lesson_2_has_the_courses_square(lesson: Lesson) -> None:
    out = lesson("02_lora_mechanism.py", "--steps", 1)
    assert "1,048,576" in out
    assert "16,384 个，是它的 1.5625%" in out


@pytest.mark.parametrize("rank", RANKS)
def test_lesson_3_prints_the_numbers_of_the_api(lesson: Lesson, tmp_path: Path, rank: int) -> None:
    picture = tmp_path / "comparison.png"
    out = lesson(
        "03_parameter_comparison.py", "--model", ",".join(MODELS), "--rank", rank, "--output", picture, "--lang", "en"
    )
    rows = [cells(line) for line in out.splitlines()]
    for model in MODELS:
        answer = memory_answer({"model": model, "recipe": {"lora": {"rank": rank}}})
        name, comparison = answer["model"]["name"], answer["comparison"]
        lora = answer["estimates"][1]["parameters"]
        counts = [
            name,
            f"{answer['model']['parameters']:,}",
            f"{lora['trainable']:,}",
            f"{lora['trainable_percent']:.4f}%",
        ]
        assert [*counts, f"{comparison['parameters_ratio']:,.0f}×"] in rows
        for estimate in answer["estimates"]:
            (row,) = [row for row in rows if row[:2] == [name, estimate["method"]]]
            assert row[6:] == [gib(estimate["peak"]["allocated_bytes"]), estimate["peak"]["phase"]]
            assert sum(map(float, row[2:6])) == pytest.approx(float(row[6]), abs=0.03)
        (row,) = [row for row in rows if row[0] == name and row[1] == f"{comparison['memory_ratio']:.2f}×"]
        assert row[2] == f"{comparison['storage_ratio']:,.0f}×"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_lesson_3_draws_chinese_with_a_font_that_has_every_character(lesson: Lesson, tmp_path: Path) -> None:
    # matplotlib warns of each missing character, and a warning is an error here
    lesson("03_parameter_comparison.py", "--model", "7B", "--output", tmp_path / "zh.png")
    assert (tmp_path / "zh.png").stat().st_size > 20_000


def test_lesson_3_without_any_chinese_font_draws_in_english(
    lesson: Lesson, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fonts  # type: ignore[import-not-found]  # of the lessons, see conftest

    monkeypatch.setattr(fonts, "_shipped", lambda manager: None)
    monkeypatch.setattr(fonts, "_installed", lambda manager: None)
    monkeypatch.setitem(__import__("matplotlib").rcParams, "font.sans-serif", ["DejaVu Sans"])
    out = lesson("03_parameter_comparison.py", "--model", "7B", "--output", tmp_path / "plain.png")
    assert "没有中文字体" in out
    assert (tmp_path / "plain.png").stat().st_size > 20_000


def test_lesson_4_makes_switches_and_proves_six_adapters(
    lesson: Lesson, hubs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORALENS_STATE_DIR", str(hubs))
    out = lesson("04_lora_adapters_demo.py", "--preset", "test", "--lang", "en")
    assert "6 different outputs from six adapters" in out
    assert "equal bit for bit: True" in out
    assert "bytes are unchanged: True" in out
    files = sorted(hubs.glob("hubs/*/adapters/*/adapter_model.safetensors"))
    assert len(files) == 6
    rows = [cells(line) for line in out.splitlines()]
    base = next(hubs.glob("hubs/*/model.safetensors")).stat().st_size
    on_disk = sum(path.stat().st_size for file in files for path in file.parent.iterdir())
    (row,) = [row for row in rows if row[0] == "this tiny model (bytes)"]
    assert row[1:3] == [f"{6 * base:,}", f"{base + on_disk:,}"]
    lora = memory_answer({"model": "7B", "method": "lora"})["estimates"][0]["storage"]
    (row,) = [row for row in rows if row[0].startswith("Llama-2-7B")]
    checkpoint = lora["checkpoint_bytes"]
    assert row[1:3] == [gib(6 * checkpoint), gib(checkpoint + 6 * lora["adapter_file_bytes"])]
    assert {row[0] for row in rows} >= {"by index", "by pointer", "from the file"}
    assert "read from disk" in lesson("04_lora_adapters_demo.py", "--preset", "test", "--lang", "en")


WRONG = [
    ("01_full_finetuning_problems.py", ["--model", "8Z"], "no model is called '8Z'"),
    ("02_lora_mechanism.py", ["--rank", "0"], "rank=0"),
    ("03_parameter_comparison.py", ["--output", "/nowhere/x.png"], "cannot write"),
    ("04_lora_adapters_demo.py", ["--preset", "huge"], "preset must be one of"),
    ("03_parameter_comparison.py", ["--rank", "eight"], "invalid int value"),
]


@pytest.mark.parametrize(("name", "arguments", "said"), WRONG)
def test_a_wrong_argument_ends_with_code_2(
    lesson: Lesson, capsys: pytest.CaptureFixture[str], name: str, arguments: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        lesson(name, *arguments, "--lang", "en")
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_wrong_argument_is_one_line_and_a_hint_for_the_shell() -> None:
    command = [sys.executable, "-W", "error", LESSONS / "03_parameter_comparison.py", "--model", "8Z", "--lang", "en"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: no model is called '8Z'")
    assert hint.startswith("hint: ")


def test_the_requirements_are_the_ones_that_the_lessons_import() -> None:
    """What a lesson imports beside the standard library and this project is in requirements.txt."""
    import ast

    listed = {re.split(r"[=<>]", line)[0] for line in (LESSONS.parent / "requirements.txt").read_text().splitlines()}
    found = set()
    for path in LESSONS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    assert found - set(sys.stdlib_module_names) - {"lesson", "fonts", "loralens"} <= listed


@pytest.mark.parametrize(
    ("lesson_file", "package"),
    [
        ("01_full_finetuning_problems.py", "tqdm"),
        ("02_lora_mechanism.py", "torch"),
        ("04_lora_adapters_demo.py", "tqdm"),
        ("03_parameter_comparison.py", "matplotlib"),
    ],
)
def test_a_package_that_is_missing_is_one_line(tmp_path: Path, lesson_file: str, package: str) -> None:
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError('none', name='{package}')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, LESSONS / lesson_file, "--lang", "en"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == f"缺少 {package} / {package} is missing: pip install -r code/requirements.txt\n"
