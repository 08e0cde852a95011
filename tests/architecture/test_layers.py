"""The layers hold, heavy libraries stay where they belong, and files stay readable."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "backend" / "loralens"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "backend")}
HEAVY = {"torch", "transformers", "peft", "accelerate", "bitsandbytes", "ray", "matplotlib"}
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))
LINES = 400


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def module_level_imports(path: Path) -> set[str]:
    """Top-level packages that importing this file imports (`if TYPE_CHECKING` left out)."""
    found: set[str] = set()
    todo: list[ast.stmt] = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.If):
            typing_only = "TYPE_CHECKING" in ast.unparse(node.test)
            todo += node.orelse if typing_only else [*node.body, *node.orelse]
        elif isinstance(node, (ast.Try, ast.With, ast.ClassDef)):
            todo += node.body
    return found


def test_import_linter_keeps_every_contract():
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("layer", ["core", "planner", "trainers", "jobs", "api", "cli"])
def test_heavy_libraries_are_imported_where_they_are_used(layer):
    guilty = {
        name_of(path): sorted(heavy)
        for path in MODULES
        if path.is_relative_to(PACKAGE / layer) and (heavy := module_level_imports(path) & HEAVY)
    }
    assert guilty == {}


def test_the_server_starts_without_torch():
    code = (
        f"import sys\nfrom loralens.api.app import create_app\ncreate_app()\nprint(sorted(set(sys.modules) & {HEAVY}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, timeout=120)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_the_package_itself_is_free_to_import():
    code = "import sys, loralens\nprint([name for name in sys.modules if name.startswith('loralens.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_public_names_exist():
    import loralens

    for name in loralens.__all__:
        assert getattr(loralens, name) is not None
    assert list(loralens.__all__) == sorted(loralens.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = loralens.nothing


def test_the_python_entry_point():
    import loralens

    estimate = loralens.estimate("7B", method="lora", rank=8, target_modules=["q_proj", "v_proj"])
    assert estimate.to_dict()["parameters"]["trainable"] == 4_194_304


def test_every_package_is_tested_by_name():
    packages = {name_of(path).rsplit(".", 1)[0] for path in MODULES if path.name != "__init__.py"} - {"loralens"}
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    assert len(packages) > 10
    # A registry finds families by their config and methods by their name: tests ask for them, they import none.
    found_by_name = {
        f"loralens.core.{name}" for name in ("architecture.families", "architecture.frameworks", "methods")
    }
    imports = {package: (package, "from {} import {}".format(*package.rsplit(".", 1))) for package in packages}
    untested = {package for package, words in imports.items() if not any(word in tests for word in words)}
    assert untested - found_by_name == set()


def test_every_layer_has_a_folder_of_tests():
    layers = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert {layer for layer in layers if not list((ROOT / "tests" / layer).rglob("test_*.py"))} == set()


def sources() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py", "*.ts", "*.vue", "*.mjs", "*.css"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    return [ROOT / line for line in listed.stdout.splitlines()]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_files_are_short_enough_to_find_ones_way():
    files = sources()
    assert files
    long = {
        str(path.relative_to(ROOT)): count
        for path in files
        if path.exists() and (count := len(path.read_text(encoding="utf-8").splitlines())) > LINES
    }
    assert long == {}
