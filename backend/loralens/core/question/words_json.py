"""The table of words as JSON, from which the page makes its settings: `python -m loralens.core.question.words_json`."""

from __future__ import annotations

import json

from loralens.core.question.recipe import ALL_WORDS


def words_json() -> str:
    """One row per word, in the table's order; `make api-types` writes it into the page's sources."""
    rows = ",\n".join("  " + json.dumps(row.to_dict(), ensure_ascii=False) for row in ALL_WORDS)
    return f"[\n{rows}\n]\n"


if __name__ == "__main__":
    print(words_json(), end="")
