"""What an adapter on disk is called and how large it is; nothing here needs torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

CONFIG_FILE: Final = "adapter_config.json"
WEIGHTS_FILE: Final = "adapter_model.safetensors"


def stored_bytes(folder: str | os.PathLike[str]) -> int:
    """Size on disk of an adapter's two files, as the file system states it."""
    return sum((Path(folder) / name).stat().st_size for name in (CONFIG_FILE, WEIGHTS_FILE))
