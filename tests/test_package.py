"""The wheel stands alone: the page is inside, nothing of PyTorch is asked for, and there is one version."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import loralens

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """Built by the build system itself, from a copy with a small page."""
    pytest.importorskip("hatchling", reason="./start.sh test installs it")
    folder = tmp_path_factory.mktemp("wheel") / "backend"
    shutil.copytree(ROOT / "backend", folder, ignore=shutil.ignore_patterns("__pycache__", "web"))
    (folder / "loralens" / "web" / "assets").mkdir(parents=True)
    (folder / "loralens" / "web" / "index.html").write_text("<!doctype html>")
    (folder / "loralens" / "web" / "assets" / "app.js.br").write_bytes(b"\0")
    (folder / ".gitignore").write_text("loralens/web/\n")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (built,) = (folder / "dist").glob("*.whl")
    assert built.name == f"loralens-{loralens.__version__}-py3-none-any.whl"
    return zipfile.ZipFile(built)


def test_the_page_and_the_data_are_inside(wheel):
    with wheel:
        names = set(wheel.namelist())
        metadata = wheel.read(f"loralens-{loralens.__version__}.dist-info/METADATA").decode()
    assert {
        "loralens/web/index.html",
        "loralens/web/assets/app.js.br",
        "loralens/core/catalogue/data/gpus.json",
    } <= names
    needed = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert not any(re.search(r"torch|ray|matplotlib", line) for line in needed)
    assert f"Version: {loralens.__version__}" in metadata


def test_there_is_one_version():
    assert "version" not in json.loads((ROOT / "frontend" / "package.json").read_text())
    assert 'dynamic = ["version"]' in (ROOT / "backend" / "pyproject.toml").read_text()
    assert f"## {loralens.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()
