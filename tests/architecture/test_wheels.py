"""The wheel that the page carries is the PyYAML of the constraints: module by module what pip installed."""

from __future__ import annotations

import hashlib
import re
import zipfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
WHEELS = ROOT / "frontend" / "vite" / "engine" / "wheels"
(WHEEL,) = WHEELS.glob("*.whl")


def test_its_modules_are_those_that_pip_installed() -> None:
    installed = Path(yaml.__file__).parent.parent
    with zipfile.ZipFile(WHEEL) as wheel:
        names = [name for name in wheel.namelist() if name.endswith(".py")]
        assert "yaml/constructor.py" in names
        assert [name for name in names if wheel.read(name) != (installed / name).read_bytes()] == []


def test_its_version_and_hash_are_those_that_are_written_down() -> None:
    version = re.search(r"^pyyaml==(\S+)$", (ROOT / "backend" / "constraints.txt").read_text("utf-8"), re.M)
    assert version is not None
    assert WHEEL.name == f"pyyaml-{version[1]}-py3-none-any.whl"
    assert hashlib.sha256(WHEEL.read_bytes()).hexdigest() in (WHEELS / "README.md").read_text("utf-8")
