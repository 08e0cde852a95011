"""Other interpreters compute the same bytes: some cases of the traced grid here, all of them in `make interpreters`."""

from __future__ import annotations

import json
import sys

import pytest
from interpreters import compare

EVERY = 12


@pytest.fixture(scope="module")
def own() -> compare.Printed:
    return compare.run(sys.executable, EVERY)


def test_the_grid_is_printed_whole(own):
    assert len(own.lines) >= 30
    assert all(json.loads(line)["bytes"] > 0 for line in own.lines.values())


def test_other_versions_that_are_installed_compute_the_same_bytes(own):
    others = [compare.run(name, EVERY) for name in compare.installed() if name != compare.IN_NODE]
    assert {other.interpreter: compare.differing(own, other) for other in others if other.lines != own.lines} == {}


@pytest.mark.skipif(not compare.in_node_is_there(), reason="npm --prefix tests/interpreters ci")
def test_cpython_3_14_computes_the_same_bytes(own):
    other = compare.run(compare.IN_NODE, EVERY)
    assert other.interpreter.startswith("CPython 3.14")
    assert compare.differing(own, other) == []


def test_a_single_byte_shows(own):
    name, line = next(iter(own.lines.items()))
    size = json.loads(line)["bytes"]
    other = compare.Printed("other", {**own.lines, name: line.replace(str(size), str(size + 1))})
    assert compare.differing(own, other) == [name]
    assert compare.differing(own, compare.Printed("fewer", {})) == list(own.lines)
    assert own.digest != other.digest


def test_an_interpreter_that_breaks_says_why(tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'no such thing' >&2\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(RuntimeError, match="ended with 3: no such thing"):
        compare.run(str(broken), EVERY)
