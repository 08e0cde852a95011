"""What is said when an optional package is missing works where it is said."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from loralens import extras
from loralens.core.errors import DependencyMissing


def test_in_the_checkouts_own_environment_start_sh_brings_it(monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "start.sh").touch()
    monkeypatch.setattr(extras, "_CHECKOUT", tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    assert extras.how_to_install("lab") == "./start.sh lab"
    assert extras.how_to_install("trace") == "LORALENS_EXTRAS=trace ./start.sh lab"


def test_elsewhere_the_packages_are_named_which_are_on_an_index(monkeypatch) -> None:
    monkeypatch.setattr(
        extras,
        "requires",
        lambda name: ["numpy>=2.4", "torch==2.13.0 ; extra == 'trace'", 'peft==0.21.2; extra == "trace"'],
    )
    monkeypatch.setattr(sys, "prefix", "/somewhere/else")
    assert extras.how_to_install("trace") == "pip install torch==2.13.0 peft==0.21.2"


def test_a_missing_package_is_named_with_the_way_to_it() -> None:
    with (
        pytest.raises(DependencyMissing, match=r"^tracing needs no_such_package, which is not installed$") as caught,
        extras.needing("trace", "tracing"),
    ):
        import no_such_package.inside  # noqa: F401
    assert caught.value.hint == extras.how_to_install("trace")


def test_a_package_in_another_version_says_what_it_lacks() -> None:
    with (
        pytest.raises(DependencyMissing, match="tracing cannot start: cannot import name 'no_such_name'"),
        extras.needing("trace", "tracing"),
    ):
        from json import no_such_name  # noqa: F401


def test_a_fault_of_our_own_is_not_called_a_missing_package() -> None:
    with pytest.raises(ModuleNotFoundError), extras.needing("trace", "tracing"):
        import loralens.no_such_module  # noqa: F401
