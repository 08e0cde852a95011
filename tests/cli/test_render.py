from __future__ import annotations

import pytest

from loralens.cli import render


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (512, "512 B"),
        (2**20, "1.0 MiB"),
        (2**30, "1.00 GiB"),
        (13_476_831_232, "12.55 GiB"),
        (1_128_857_903_104, "1,051.33 GiB"),
        (-(2**30), "-1.00 GiB"),
        (None, "?"),
    ],
)
def test_bytes_as_read_by_people(count, text):
    assert render.gib(count) == text


def test_an_error_stays_on_its_lines(capsys):
    assert render.fail("two\nlines", "try\nthis", 2) == 2
    assert capsys.readouterr().err == "error: two lines\nhint: try this\n"


def test_text_is_printed_as_it_is(capsys):
    render.line("[bold]not markup[/bold] :smile:")
    assert capsys.readouterr().out == "[bold]not markup[/bold] :smile:\n"


def test_a_table_keeps_its_cells(capsys):
    render.table(["name", "size"], [["a", "1"], ["b", "22"]], title="sizes")
    out = capsys.readouterr().out
    assert [line.split() for line in out.splitlines() if line.strip() and "─" not in line] == [
        ["sizes"],
        ["name", "size"],
        ["a", "1"],
        ["b", "22"],
    ]
