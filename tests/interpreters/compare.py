"""`python compare.py [INTERPRETER…]`: does every interpreter compute the same bytes over the traced grid?

Without arguments: python3.11 to python3.14 as far as they are installed, and the CPython 3.14 that is compiled for Node
(`npm ci` in this folder brings it). The interpreter that runs this is what the others are compared with.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SCRIPT = "tests/interpreters/grid.py"
IN_NODE = "node"
NAMES = ("python3.11", "python3.12", "python3.13", "python3.14")


@dataclass(frozen=True, slots=True)
class Printed:
    """What one interpreter printed: who it is, and the line of each case."""

    interpreter: str
    lines: dict[str, str]

    @property
    def digest(self) -> str:
        """SHA-256 of all lines."""
        return hashlib.sha256("\n".join(self.lines.values()).encode()).hexdigest()


def installed() -> list[str]:
    """The interpreters that are there, beside the version that runs."""
    running = f"python{sys.version_info.major}.{sys.version_info.minor}"
    found = [name for name in NAMES if name != running and _starts(name)]
    return [*found, IN_NODE] if in_node_is_there() else found


def _starts(name: str) -> bool:
    # a version manager puts names on the path that start nothing until a version is chosen
    return shutil.which(name) is not None and subprocess.run([name, "-c", ""], capture_output=True).returncode == 0


def in_node_is_there() -> bool:
    """Whether `npm ci` was run in this folder."""
    return shutil.which("node") is not None and (HERE / "node_modules" / "pyodide").is_dir()


def run(interpreter: str, every: int = 1, part: str = "") -> Printed:
    """The grid in one interpreter, with an environment of its own.

    Raises:
        RuntimeError: it ended with an error.
    """
    command = ["node", str(HERE / "python.mjs"), str(ROOT), SCRIPT]
    if interpreter != IN_NODE:
        command = [interpreter, "-I", "-S", "-B", str(ROOT / SCRIPT)]
    done = subprocess.run([*command, str(every), part], capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{interpreter} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    first, *rest = done.stdout.splitlines()
    return Printed(json.loads(first)["interpreter"], {json.loads(line)["case"]: line for line in rest})


def differing(own: Printed, other: Printed) -> list[str]:
    """Names of the cases that are not the same in both, to the last byte of the last part."""
    return [name for name in {**own.lines, **other.lines} if own.lines.get(name) != other.lines.get(name)]


def main() -> int:
    """Compare and print; 0 when all agree."""
    parser = argparse.ArgumentParser(prog="compare.py", description=__doc__)
    parser.add_argument("interpreters", nargs="*")
    parser.add_argument("--every", type=int, default=1, help="each n-th case alone")
    parser.add_argument("--only", default="", help="the cases with this in their name")
    given = parser.parse_args()
    own = run(sys.executable, given.every, given.only)
    print(f"{own.interpreter}: {len(own.lines)} cases, {own.digest[:16]}", flush=True)
    same = True
    for interpreter in given.interpreters or installed():
        other = run(interpreter, given.every, given.only)
        names = differing(own, other)
        same = same and not names
        print(f"{other.interpreter}: {len(other.lines)} cases, {other.digest[:16]}, {len(names)} differ", flush=True)
        for name in names[:20]:
            print(f"  {name}\n    {own.lines.get(name)}\n    {other.lines.get(name)}")
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
