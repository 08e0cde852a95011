"""What Python says in both languages: the same keys and the same values in each file, and no Chinese beside the tables."""

import re
from pathlib import Path
from string import Formatter

import pytest

from loralens.core.texts import LANGUAGES, Texts

PACKAGE = Path(__file__).parents[2] / "backend" / "loralens"
TABLES = sorted(path.parent for path in PACKAGE.rglob("locales/en.json"))
CHINESE = re.compile(r"[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]")
NOT_PROSE = {
    "api/access.py": "the one page that is shown before any other file may be asked for",
    "lab/adapters/tasks.py": "names and examples of what the hub's adapters learn: data of the experiment",
    "planner/course_chinese.py": "the rules by which marks and spaces are put: no words",
}


def put_in(sentence: str) -> set[tuple[str, str]]:
    return {(name, form or "") for _, name, form, _ in Formatter().parse(sentence) if name is not None}


@pytest.mark.parametrize("folder", TABLES, ids=lambda folder: folder.parent.name)
def test_both_files_have_the_same_keys_and_values(folder: Path) -> None:
    package = ".".join(("loralens", *folder.parent.relative_to(PACKAGE).parts))
    english, chinese = (Texts(package).table[language] for language in ("en", "zh"))
    assert list(english) == list(chinese)
    assert {key for key in english if put_in(english[key]) != put_in(chinese[key])} == set()
    assert {path.stem for path in folder.glob("*.json") if "-" not in path.stem.removesuffix("-CN")} - {"zh-CN"} == {
        "en"
    }
    assert not [key for key, text in english.items() if CHINESE.search(text)]


def test_every_language_has_a_file() -> None:
    assert len(TABLES) > 1
    assert {f"{name}.json" for name in LANGUAGES.values()} <= {path.name for path in TABLES[0].iterdir()}


def test_a_value_in_both_languages_is_taken_in_the_sentences_own() -> None:
    texts = Texts("loralens.lab.forgetting")
    said = texts("frozen_embeddings", share=0.5, rest=texts("frozen_embeddings.free"))
    assert said["en"].endswith("due to its rank.") and said["zh"].endswith("来自低秩。")


def test_no_chinese_stands_in_python() -> None:
    found = {
        str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if CHINESE.search(path.read_text("utf-8"))
    }
    assert found == set(NOT_PROSE)
