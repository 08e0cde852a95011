"""A font with Chinese characters for matplotlib, wherever the lesson runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

# Fonts that systems bring along, in order of preference.
INSTALLED = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "PingFang SC", "Heiti SC",
    "Hiragino Sans GB", "Microsoft YaHei", "SimHei", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Noto Sans CJK JP",
)  # fmt: skip


def use_chinese_font() -> bool:
    """Make matplotlib draw Chinese; False where there is no font for it.

    First the font that the package zhplot ships (in code/requirements.txt; only its file is used), then installed ones.
    """
    from matplotlib import font_manager, rcParams

    name = _shipped(font_manager) or _installed(font_manager)
    if name is not None:
        rcParams["font.sans-serif"] = [name, *rcParams["font.sans-serif"]]
        rcParams["axes.unicode_minus"] = False
    return name is not None


def _shipped(font_manager) -> str | None:  # type: ignore[no-untyped-def]
    found = importlib.util.find_spec("zhplot")
    for folder in (found.submodule_search_locations or []) if found else []:
        for file in Path(folder).glob("fonts/NotoSansSC*.ttf"):
            font_manager.fontManager.addfont(file)
            return str(font_manager.FontProperties(fname=file).get_name())
    return None


def _installed(font_manager) -> str | None:  # type: ignore[no-untyped-def]
    known = set(font_manager.get_font_names())
    return next((name for name in INSTALLED if name in known), None)
