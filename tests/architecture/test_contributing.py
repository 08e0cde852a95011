"""CONTRIBUTING shows a real family, as it is in the code."""

from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_family_shown_is_the_family_run():
    code = (ROOT / "backend/loralens/core/architecture/families/granite.py").read_text(encoding="utf-8")
    shown = code[code.index("class GraniteLayer") :].rstrip()
    assert shown in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert len(code.splitlines()) < 60
