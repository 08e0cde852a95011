"""The trained hub that ships with the project, in `shipped/`: a page without a server runs it in the browser.

    python -m loralens.lab.adapters.shipping            # train it anew (some minutes on one core) and write the folder
    python -m loralens.lab.adapters.shipping --check    # train it anew and compare every file, byte by byte

It is `training.PRESETS["standard"]`, seed included. The same Python (its own library is the text that is learned), the
same torch and the same kind of processor give the same bytes; `page.json` says which those were.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from loralens.lab.adapters import example_requests, load_hub
from loralens.lab.adapters.tasks import TASKS, grammar_hash, prompt_for
from loralens.lab.adapters.training import hub_folder, recipe_named, train
from loralens.lab.tiny.tokenizer import load_tokenizer

FOLDER: Final = Path(__file__).parent / "shipped"
PAGE: Final = "page.json"
"""What the page must know beside the weights: names, examples, sizes, and what made the files."""


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but `page.json`, by its path below `folder`."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != PAGE
    }


def described(folder: Path) -> dict[str, object]:
    """The content of `page.json` for the hub in `folder`."""
    hub = load_hub(folder)
    trained = json.loads((folder / "hub.json").read_text("utf-8"))
    storage = hub.storage()
    requests = trained["held_out"]["requests"]
    return {
        "made_with": {"python": platform.python_version(), "torch": torch.__version__, "machine": platform.machine()},
        "grammar": grammar_hash(),
        "tokenizer": load_tokenizer().content_hash,
        "base": {
            "name": hub.base.name,
            "parameters": hub.parameters,
            "file_bytes": storage.base_bytes,
            "sha256": hub.loaded_sha256,
        },
        "end_id": load_tokenizer().eos_id,
        "adapters": [
            {
                "name": loaded.name,
                "title": task.title,
                "title_zh": task.title_zh,
                "rank": loaded.rank,
                "alpha": loaded.alpha,
                "parameters": loaded.parameters,
                "file_bytes": loaded.file_bytes,
                "held_out": {"requests": requests, "right": trained["held_out"]["right"][loaded.name]},
            }
            for task, loaded in zip(TASKS, hub.adapters, strict=True)
        ],
        "examples": [{"request": request, "prompt": prompt_for(request)} for request in example_requests()],
        "files": file_hashes(folder),
    }


def differing(ours: Path, theirs: Path) -> list[str]:
    """Files, by path, that only one of two folders has or whose bytes differ; `page.json` is left out."""
    one, other = file_hashes(ours), file_hashes(theirs)
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, then write or compare. 0, or 1 where a file differs."""
    parser = argparse.ArgumentParser(description="The trained hub that ships with the project.")
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    check = parser.parse_args(arguments).check
    recipe = recipe_named("standard")
    with tempfile.TemporaryDirectory() as name:
        for event in train(Path(name), recipe):
            if event["type"] == "progress" and event["step"] in (0, event["steps"]):
                print(event["stage"], file=sys.stderr)
        made = hub_folder(Path(name), recipe)
        if check:
            names = differing(made, FOLDER)
            print("\n".join(f"differs: {name}" for name in names) or "the same bytes")
            return 1 if names else 0
        (made / PAGE).write_text(json.dumps(described(made), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(FOLDER, ignore_errors=True)
        shutil.copytree(made, FOLDER)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
