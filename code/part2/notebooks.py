"""The four lessons as notebooks, in Chinese and in English, made from the scripts: one cell for each step.

python code/part2/notebooks.py                 # runs every lesson (some minutes) and writes notebooks/*.ipynb with its output
python code/part2/notebooks.py --lesson 02     # one of them

A notebook has the script's own code; nothing is written twice. What the script prints as headings is text between the cells.
"""

from __future__ import annotations

import argparse
import ast
import base64
import io
import json
import os
import re
import sys
import textwrap
import types
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "notebooks"
LANGUAGES = ("zh", "en")
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
SETUP = """\
import subprocess
import sys
from pathlib import Path

REPOSITORY = ""  # {address}
OPTIONS = ["--lang", "{language}"]  # {options}

folders = [Path.cwd(), *Path.cwd().parents]
checkout = next((one for one in folders if (one / "code/part2/lesson.py").is_file()), Path("lora-lens"))
if not checkout.is_dir():
    subprocess.run(["git", "clone", "--depth", "1", REPOSITORY, str(checkout)], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "zhplot", "tqdm", "psutil", "safetensors"], check=True)
sys.path.insert(0, str((checkout / "code/part2").resolve()))
sys.argv = ["notebook", *OPTIONS]"""
SAID = {
    "zh": {
        "setup": "## 准备\n\n在项目的检出目录里可以直接运行。在别处（例如带 T4 的免费笔记本服务）先把 `REPOSITORY` 填成项目仓库的地址，"
        "这一格会把它取下来。不需要 GPU，也不需要下载任何模型。",
        "address": "仓库地址，只在检出目录之外需要",
        "options": "脚本的选项都可以写在这里，例如 --rank 16",
        "parts": "## 这一课用到的东西",
    },
    "en": {
        "setup": "## Before you begin\n\nInside a checkout of the project this runs as it is. Elsewhere (a free notebook service with "
        "a T4, for instance) set `REPOSITORY` to the address of the project's repository: the cell fetches it. Neither a GPU nor "
        "any download of a model is needed.",
        "address": "the repository's address, needed only outside of a checkout",
        "options": "all of the script's options can stand here, --rank 16 for instance",
        "parts": "## What this lesson is made of",
    },
}
PICTURE = "from IPython.display import Image, display\n\ndisplay(Image(filename=args.output))"


@dataclass(frozen=True)
class Cell:
    """Text, or code that is run."""

    text: str
    code: bool = False


def cells(script: str, language: str) -> list[Cell]:
    """The cells of a lesson's notebook: its title, the way to the project, its definitions, and one for each step.

    Args:
        script: the lesson's text.
        language: zh or en.
    """
    script = script.replace("Path(__file__).with_name(", "Path(")  # a notebook writes where it runs
    tree = ast.parse(script)
    lines = script.splitlines()
    said = SAID[language]
    setup = SETUP.format(language=language, address=said["address"], options=said["options"])
    found = [Cell(_title(ast.get_docstring(tree) or "", language)), Cell(said["setup"]), Cell(setup, code=True)]
    main = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    above = [node for node in tree.body[1:] if node is not main and not isinstance(node, ast.If)]
    found += [Cell(said["parts"]), Cell(_without(main, above, lines), code=True)]
    options = _defaults(main.body[0])
    part: list[ast.stmt] = []
    for node in main.body:
        heading = _heading(node, language, options)
        if heading is None:
            part.append(node)
            continue
        found += _code(part, lines)
        found.append(Cell(heading))
        part = []
    found += _code(part, lines)
    if "    output=(" in script:
        found.append(Cell(PICTURE, code=True))
    return found


def _title(docstring: str, language: str) -> str:
    """`第 1 课 / Lesson 1: 中文 / English, …` as a heading, and what the script is called."""
    first, _, rest = docstring.partition("\n")
    number, _, text = first.partition(": ")
    place = LANGUAGES.index(language)
    zh, _, en = text.partition(" / ")
    command = next(line for line in rest.splitlines() if line.startswith("python "))
    return f"# {number.split(' / ')[place]}: {(zh, en)[place]}\n\n`{command}`"


def _without(main: ast.stmt, nodes: list[ast.stmt], lines: list[str]) -> str:
    """Imports, constants and definitions as they stand, without `main` and without what only a script needs."""
    own = range(main.lineno, (main.end_lineno or 0) + 1)
    kept = [
        lines[number - 1] for number in range(nodes[0].lineno, (nodes[-1].end_lineno or 0) + 1) if number not in own
    ]
    text = re.sub(r"\n{4,}", "\n\n\n", "\n".join(kept)).strip("\n")
    return re.sub(r"(?<=from lesson import )(.*)", lambda names: re.sub(r", (run|step)\b", "", names[1]), text)


def _first(node: ast.stmt, lines: list[str], after: int) -> int:
    """Where a statement begins, with the comments directly above it."""
    first = node.lineno - 1
    while first > after and lines[first - 1].strip().startswith("#"):
        first -= 1
    return first


def _code(nodes: list[ast.stmt], lines: list[str]) -> list[Cell]:
    if not nodes:
        return []
    first = _first(nodes[0], lines, 0)
    return [Cell(textwrap.dedent("\n".join(lines[first : nodes[-1].end_lineno])).strip("\n"), code=True)]


def _defaults(node: ast.stmt) -> dict[str, Any]:
    """The options of `args = arguments(about, name=(default, meaning), …)`."""
    assert isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
    found = {}
    for keyword in node.value.keywords:
        assert isinstance(keyword.value, ast.Tuple) and keyword.arg is not None
        default = keyword.value.elts[0]
        found[keyword.arg] = default.value if isinstance(default, ast.Constant) else None
    return found


def _heading(node: ast.stmt, language: str, options: dict[str, Any]) -> str | None:
    """`step(1, zh, en)` as a heading, with the options as they are by default; None for every other statement."""
    call = node.value if isinstance(node, ast.Expr) else None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != "step":
        return None
    text = ast.Expression(call.args[1 + LANGUAGES.index(language)])
    number = call.args[0]
    assert isinstance(number, ast.Constant)
    said = eval(compile(text, "heading", "eval"), {"args": types.SimpleNamespace(**options)})
    return f"## {number.value}. {said}"


def run_cells(given: list[Cell], options: list[str]) -> list[list[dict[str, Any]]]:
    """Run the code cells one after the other, in this process; for each, its outputs as a notebook keeps them.

    Args:
        given: the cells.
        options: the lesson's options, in place of those that the notebook has.
    """
    space: dict[str, Any] = {"__name__": "__main__"}
    outputs = []
    for cell in given:
        if not cell.code:
            outputs.append([])
            continue
        said, shown = io.StringIO(), []
        with redirect_stdout(said), _displayed() if cell.text == PICTURE else nullcontext(shown) as shown:
            exec(compile(cell.text, "cell", "exec"), space)
        if cell.text.startswith("import subprocess"):
            sys.argv = ["notebook", *options]
        text = said.getvalue()
        stream = [{"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)}]
        outputs.append([*(stream if text else []), *shown])
    return outputs


@contextmanager
def _displayed() -> Iterator[list[dict[str, Any]]]:
    """Stands in for IPython's display: pictures are kept as a notebook keeps them."""
    shown: list[dict[str, Any]] = []

    def display(picture: bytes) -> None:
        data = {"image/png": base64.b64encode(picture).decode()}
        shown.append({"data": data, "metadata": {}, "output_type": "display_data"})

    ours: Any = types.ModuleType("IPython.display")
    ours.Image, ours.display = lambda filename: Path(filename).read_bytes(), display
    kept = {name: sys.modules.get(name) for name in ("IPython", "IPython.display")}
    sys.modules |= {"IPython": types.ModuleType("IPython"), "IPython.display": ours}
    try:
        yield shown
    finally:
        for name, module in kept.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def notebook(given: list[Cell], outputs: list[list[dict[str, Any]]]) -> str:
    """The notebook as text. Source: nbformat 4.5, nbformat/v4/nbformat.v4.5.schema.json."""
    rows: list[dict[str, Any]] = []
    count = 0
    for number, (cell, said) in enumerate(zip(given, outputs, strict=True)):
        row = {"cell_type": "code" if cell.code else "markdown", "id": f"cell-{number}", "metadata": {}}
        if cell.code:
            count += 1
            row |= {"execution_count": count, "outputs": said}
        rows.append(row | {"source": cell.text.splitlines(keepends=True)})
    whole = {"cells": rows, "metadata": {"kernelspec": KERNEL}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, ensure_ascii=False, indent=1) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="The lessons as notebooks.")
    parser.add_argument("--lesson", default="", help="only those whose names begin like this")
    wanted = parser.parse_args().lesson
    FOLDER.mkdir(exist_ok=True)
    os.chdir(FOLDER)
    for path in sorted(HERE.glob(f"{wanted}*_*.py")):
        for language in LANGUAGES:
            found = cells(path.read_text("utf-8"), language)
            outputs = run_cells(found, ["--lang", language])
            file = FOLDER / f"{path.stem}.{language}.ipynb"
            file.write_text(notebook(found, outputs), encoding="utf-8")
            print(file.name, flush=True)
    for picture in FOLDER.glob("*.png"):
        picture.unlink()


if __name__ == "__main__":
    main()
