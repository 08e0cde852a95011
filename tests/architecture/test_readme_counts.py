"""What the READMEs count is counted: traced steps, traced ranks and published runs, in both languages."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def lines(*names: str) -> int:
    return sum(len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in names)


OBJECTIVES = lines("tests/oracles/traced-objectives.jsonl")
RANKS = lines("tests/oracles/traced-grid-ranks.jsonl", "tests/oracles/traced-ranks.jsonl")
RUNS = lines("docs/accuracy/parallel-runs.jsonl")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("README.md", (f"{OBJECTIVES} traced steps", f"{RANKS} traced ranks", f"{RUNS} published runs")),
        ("README.zh-CN.md", (f"{OBJECTIVES} 个用", f"{RANKS} 个进程", f"{RUNS} 次公开运行")),
    ],
)
def test_counts_are_those_of_the_files(name: str, said: tuple[str, ...]) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert [part for part in said if part not in text] == []
