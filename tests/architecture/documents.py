"""What the documents show is what the program prints: runs the commands in them and writes their output back.

A ```console block holds lines `$ command` and, below each, its whole output. `python -m tests.architecture.documents`
(or `make docs`) writes them anew; `test_documents.py` fails when they differ.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (ROOT / "README.md", ROOT / "README.zh-CN.md")
REFERENCE = ROOT / "docs" / "cli.md"
BLOCK = re.compile(r"(?<=```console\n).*?(?=\n```)", re.DOTALL)
ADDRESS = "localhost:5173"


def run(command: str, address: str) -> str:
    """Output of a shell command in which `loralens` is this checkout's and localhost:5173 is `address`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LORALENS_")} | {
        "PYTHONPATH": str(ROOT / "backend"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
    }
    script = f'loralens() {{ "{sys.executable}" -m loralens "$@"; }}\n' + command.replace(ADDRESS, address)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, cwd=ROOT, timeout=60)
    text = done.stdout + done.stderr
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")


def commands(text: str) -> list[str]:
    """The commands that a document, or one block of it, shows with their output."""
    blocks = BLOCK.findall(text) or [text]
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def refreshed(text: str, address: str) -> str:
    """The document with the output of its commands as it is now."""

    def again(block: re.Match[str]) -> str:
        return "\n".join(f"$ {command}\n{run(command, address)}" for command in commands(block[0]))

    return BLOCK.sub(again, text)


def cli_reference() -> str:
    """docs/cli.md: the help of every command, as it is printed."""
    from loralens.cli.main import VERBS

    parts = [
        "# The command line",
        "Written by `make docs` from the program's own help. Every command that answers has `--json` and then prints what"
        " the API answers, byte for byte. Exit codes: 0, 2 for a mistake in the input, 3 for missing hardware or"
        " packages, 1 otherwise; verdicts of `fit` and of `memory --gpu`: 0 fits, 4 tight, 5 does not fit.",
        f"```text\n{run('loralens --help', ADDRESS)}\n```",
    ]
    for verb in VERBS:
        shown = run(f"loralens {verb} --help", ADDRESS)
        parts.append(f"## loralens {verb}\n\n```text\n{shown}\n```")
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Write everything anew, against a server of its own."""
    sys.path.insert(0, str(ROOT / "tests"))
    from conftest import running

    from loralens.settings import Settings

    with running(Settings()) as address:
        for path in DOCUMENTS:
            path.write_text(
                refreshed(path.read_text(encoding="utf-8"), address.removeprefix("http://")), encoding="utf-8"
            )
    REFERENCE.write_text(cli_reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
