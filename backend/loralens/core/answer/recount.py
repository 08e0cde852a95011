"""Write the catalogue's data/counts.json, the parameters of every model: python -m loralens.core.answer.recount.

A list of all models says how large each is, and counting them all takes a second, several in a browser.
"""

from __future__ import annotations

import json

from loralens.core import catalogue
from loralens.core.architecture.registry import count_parameters
from loralens.core.catalogue import COUNTS


def build() -> dict[str, int]:
    """Id → parameters, in the catalogue's order."""
    return {entry.id: count_parameters(entry.config).total for entry in catalogue.models()}


def main() -> None:
    """Count all of them anew."""
    COUNTS.write_text(json.dumps(build(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
