from __future__ import annotations

import pytest

from loralens.cli.options import MAX_FILE_BYTES, read_json
from loralens.core.errors import InvalidInput
from loralens.core.question.recipe import WORDS


@pytest.mark.parametrize("verb", ["memory", "params", "plan"])
def test_every_recipe_word_is_an_option_with_help(run, verb):
    _, out, _ = run(verb, "--help")
    squeezed = "".join(out.split())
    for word in WORDS:
        shown = "--" + word.name.replace("_", "-")
        assert shown in squeezed or shown[:16] in squeezed, word.name


def test_a_large_file_is_not_read(tmp_path):
    file = tmp_path / "big.json"
    with file.open("wb") as sparse:
        sparse.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(InvalidInput, match="larger"):
        read_json(str(file))


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(InvalidInput, match="cannot read"):
        read_json(str(tmp_path))
