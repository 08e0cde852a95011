"""`make replay`: all answers of this tree beside those of an earlier revision, and what differs, to the byte."""

from __future__ import annotations

import argparse
import re
import sys
import time

from replay import recorded
from replay.cases import Case, every_case
from replay.differences import differences, table
from replay.trees import ROOT, Asked, catalogue, default_base, unpacked


def main() -> int:
    """Exit code 0 where nothing differs, 1 where something does (as diff has it)."""
    read = argparse.ArgumentParser(prog="make replay", description=__doc__)
    read.add_argument("--base", default="", help="a revision; default: where this branch left main")
    read.add_argument("--only", default="", help="a regular expression that the names of cases must match")
    read.add_argument("--rows", type=int, default=60, help="longest table")
    read.add_argument("--record", action="store_true", help="write tests/oracles/replay.tsv instead")
    given = read.parse_args()
    cases = [case for case in every_case(catalogue()) if re.search(given.only, case["name"])]
    published = bool(re.search(given.only, "published/"))
    return _record(cases, published, bool(given.only)) if given.record else _compare(cases, published, given)


def _compare(cases: list[Case], published: bool, given: argparse.Namespace) -> int:
    base, began = given.base or default_base(), time.monotonic()
    with unpacked(base) as tree:
        earlier, now = Asked(tree, cases, published), Asked(ROOT, cases, published)
        before, after = earlier.answers(), now.answers()
    # A model that the base does not know has nothing to differ from.
    before = {name: found for name, found in before.items() if not found.get("refused", "").startswith("unknown_model")}
    found = differences(before, after)
    seconds = time.monotonic() - began
    print(f"{len(before.keys() & after.keys()):,} cases on {base[:12]} and on this tree, {seconds:.0f} s")
    for alone, side in ((before.keys() - after.keys(), "before"), (after.keys() - before.keys(), "now")):
        if alone:
            print(f"only {side}: {len(alone):,}: {', '.join(sorted(alone)[:8])} …")
    print("\n".join(table(found, given.rows)) if found else "no number differs")
    return int(bool(found))


def _record(cases: list[Case], published: bool, kept: bool) -> int:
    changed = recorded.write(Asked(ROOT, cases, published).answers(), kept=kept)
    print(f"{recorded.FILE.relative_to(ROOT)}: {changed:,} lines changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
