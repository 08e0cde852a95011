"""Models in local folders, offered by the setting LORALENS_MODELS_DIR: here only their config.json is read."""

from __future__ import annotations

from pathlib import Path

from loralens.huggingface.configs import MAX_BYTES, read_config


def folder_config(registry: Path | None, name: str) -> tuple[str, dict[str, object]] | None:
    """The folder that is called like the model, and its config; None where there is none.

    `owner/name` is looked for as the folder `owner--name`, then as `name`. Links are left out: they could lead anywhere.

    Raises:
        InvalidInput: the folder is there, its config.json is not one.
    """
    if registry is None or not registry.is_dir():
        return None
    wanted = dict.fromkeys((name.replace("/", "--").lower(), name.rsplit("/", 1)[-1].lower()))
    found = {path.name.lower(): path for path in registry.iterdir() if path.is_dir() and not path.is_symlink()}
    for folder in (found[key] for key in wanted if key in found):
        file = folder / "config.json"
        if file.is_file() and not file.is_symlink():
            with file.open("rb") as opened:
                return folder.name, read_config(opened.read(MAX_BYTES + 1), f"config.json of the folder {folder.name}")
    return None
