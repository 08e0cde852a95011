"""Write data/models.json, the index of names, from the model files: python -m loralens.core.catalogue.reindex."""

from __future__ import annotations

import json
from typing import Any

from loralens.core.catalogue._models import DATA, INDEX
from loralens.core.catalogue._names import key


def names_of(row: dict[str, Any]) -> list[str]:
    """Every name under which one model is filed."""
    return [key(name) for name in (row["id"], row["name"], row["hf_id"], row["hf_id"].split("/")[-1], *row["aliases"])]


def build(order: list[str]) -> dict[str, str]:
    """Filed name → id. Models that `order` does not know come last, by name.

    Raises:
        ValueError: two models claim one name.
    """
    rows = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (DATA / "models").glob("*.json")}
    index: dict[str, str] = {}
    for id_ in [*(known for known in order if known in rows), *sorted(set(rows) - set(order))]:
        if rows[id_]["id"] != id_:
            raise ValueError(f"{id_}.json calls itself {rows[id_]['id']}")
        for name in names_of(rows[id_]):
            if index.setdefault(name, id_) != id_:
                raise ValueError(f"both {index[name]} and {id_} are called {name}")
    return index


def main() -> None:
    """Write the index, in the order that it has now."""
    order = list(dict.fromkeys(json.loads(INDEX.read_text(encoding="utf-8")).values())) if INDEX.exists() else []
    INDEX.write_text(json.dumps(build(order), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
