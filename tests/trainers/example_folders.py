"""Public example folders, read: `python tests/trainers/example_folders.py axolotl=DIR.git llama-factory=DIR.git …` prints the shares.

Each DIR is a git repository, of which the newest commit is read. A file counts as read where no key stays unnamed: each is a word of
the recipe, is said to be approximate, blocks the answer, or has nothing to do with memory. Answered is what no key blocks.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Final

from loralens.core.errors import LoraLensError
from loralens.trainers.reader import read

FILES: Final = {
    "axolotl": ("examples/*.y*ml",),
    "llama-factory": ("examples/*.yaml",),
    "ms-swift": ("examples/*.sh",),
    "torchtune": ("recipes/configs/*.yaml",),
    "litgpt": ("config_hub/finetune/*.yaml",),
    "trl": ("examples/cli_configs/*.yaml", "examples/notebooks/*.ipynb"),
    "unsloth": ("nb/*.ipynb",),
}
NO_TRAINING: Final = (
    "accelerate", "deepspeed", "inference", "merge_lora", "fsdp", "export", "deploy", "infer", "eval", "generation", "quantiz",
    "zero", "ds_", "sample", "app", "rollout", "server", "dataset_info", "vllm", "pretrain", "hermes", "converter", "kaggle",
)  # fmt: skip
"""Parts of the paths of files that start no training: accelerate's and DeepSpeed's, serving, evaluation, conversion."""


def files(name: str, repository: str) -> Iterator[tuple[str, str]]:
    """Path and text of every file that starts a training."""
    git = ["git", "-C", repository]
    listed = subprocess.run([*git, "ls-tree", "-r", "--name-only", "HEAD"], capture_output=True, text=True, check=True)
    for path in listed.stdout.splitlines():
        own = any(fnmatchcase(path, pattern) for pattern in FILES[name])
        if not own or any(part in path.lower().partition("/")[2] for part in NO_TRAINING):
            continue
        shown = subprocess.run([*git, "show", f"HEAD:{path}"], capture_output=True, check=False)
        if shown.returncode == 0:
            yield path, shown.stdout.decode("utf-8", "replace")


def main(given: list[str]) -> None:
    """A row for each trainer, and what blocks most."""
    print("| trainer | files | every key named | answered | blocked most by |\n| --- | ---: | ---: | ---: | --- |")
    whole: Counter[str] = Counter()
    for one in given:
        name, _, repository = one.partition("=")
        count, blockers = Counter[str](), Counter[str]()
        for path, text in files(name, repository):
            count["files"] += 1
            try:
                r = read({"files": {PurePath(path).name: text}})
            except LoraLensError as error:
                blockers[error.message.split(": ", 1)[-1][:60]] += 1
                print(f"{path}: {error.message[:160]}", file=sys.stderr)
                continue
            if r.unknown:
                print(f"{path}: {', '.join(setting.key for setting in r.unknown)}", file=sys.stderr)
            count["named"] += not r.unknown
            count["answered"] += not r.blocks
            blockers.update({says for _, says in r.blocks})
        whole += count
        most = "; ".join(f"{says} ({times})" for says, times in blockers.most_common(4))
        print(row(name, count, most), flush=True)
    print(row("all", whole, ""))


def row(name: str, count: Counter[str], most: str) -> str:
    """One line of the table."""
    shares = " | ".join(f"{count[key]} ({count[key] / max(1, count['files']):.1%})" for key in ("named", "answered"))
    return f"| {name} | {count['files']} | {shares} | {most} |"


if __name__ == "__main__":
    main(sys.argv[1:])
