"""The READMEs and the reference show what the program prints, in both languages alike."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from architecture.documents import BLOCK, DOCUMENTS, REFERENCE, ROOT, cli_reference, commands, run

INSTALLATION = (ROOT / "docs/install.md", ROOT / "docs/install.zh-CN.md")
SHOWN = [
    (path, command, shown.strip("\n"))
    for path in DOCUMENTS
    for block in BLOCK.findall(path.read_text(encoding="utf-8"))
    for command, shown in (part.split("\n", 1) for part in re.split(r"^\$ ", block, flags=re.MULTILINE) if part)
]


@pytest.mark.parametrize(("path", "command", "shown"), SHOWN, ids=lambda value: getattr(value, "name", None))
def test_a_command_prints_what_the_document_shows(server, path, command, shown):
    assert run(command, server.removeprefix("http://")) == shown, "make docs writes the documents anew"


def test_both_languages_show_the_same_commands():
    first, second = (commands(path.read_text(encoding="utf-8")) for path in DOCUMENTS)
    assert first == second
    assert any(command.startswith("curl") for command in first)
    assert any(command.startswith("loralens") for command in first)


@pytest.mark.parametrize("path", (*DOCUMENTS, *INSTALLATION), ids=lambda path: path.name)
def test_what_a_document_points_to_exists(path):
    links = re.findall(r"\]\(([^)#:]+)\)|src=\"([^\":]+)\"", path.read_text(encoding="utf-8"))
    assert links
    for link in {one or other for one, other in links}:
        assert (path.parent / link).exists(), link


def test_every_verb_and_option_is_in_the_reference():
    assert REFERENCE.read_text(encoding="utf-8") == cli_reference(), "make docs writes docs/cli.md anew"


def test_every_setting_is_explained_in_both_languages():
    from loralens.settings import Settings

    for path in INSTALLATION:
        text = path.read_text(encoding="utf-8")
        missing = [name for name in Settings.model_fields if f"LORALENS_{name.upper()}" not in text]
        assert missing == [], path.name


def test_every_make_target_explains_itself():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z0-9-]+):", makefile, flags=re.MULTILINE)
    explained = re.findall(r"^([a-z0-9-]+):.*## \S", makefile, flags=re.MULTILINE)
    assert targets == explained
    contributing = Path(ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([a-z0-9-]+)`", contributing):
        assert target in targets
