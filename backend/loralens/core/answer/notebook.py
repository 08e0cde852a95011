"""An estimate as a notebook shows it: one small piece of HTML without scripts, fonts or addresses, in the notebook's own colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

COLOURS: Final = {
    "weights_bytes": "#5b8def", "adapter_bytes": "#e08a3c", "gradients_bytes": "#c25b8f", "optimizer_state_bytes": "#4aa38a",
    "activations_bytes": "#8f7ae0", "logits_bytes": "#b0a046", "temporaries_bytes": "#8a8f98",
}  # fmt: skip
"""Readable on white and on black; the text beside says the same."""
_BOX: Final = "max-width:36rem;padding:.7rem .9rem;border:1px solid rgba(128,128,128,.45);border-radius:8px;color:inherit;font:inherit"
_BAR: Final = "display:flex;height:.7rem;margin:.5rem 0;border-radius:4px;overflow:hidden"
_DOT: Final = "display:inline-block;width:.65rem;height:.65rem;border-radius:2px;margin-right:.4rem"


def html_card(title: str, lines: Sequence[str], parts: Mapping[str, int]) -> str:
    """The card. `parts`: bytes by their contract name, the bar's pieces; names and lines may hold anything, and are escaped.

    >>> html_card("Qwen", ["<script>"], {})[-38:]
    '</div><div>&lt;script&gt;</div></div>'
    """
    total = sum(parts.values())
    held = {name: size for name, size in parts.items() if size > 0}
    bar = "".join(
        f'<span style="width:{100 * size / total:.2f}%;background:{_colour(name)}"></span>'
        for name, size in held.items()
    )
    rows = "".join(
        f'<tr><td style="text-align:left"><span style="{_DOT};background:{_colour(name)}"></span>{escape(_plain(name))}</td>'
        f'<td style="text-align:right">{size / 2**30:.2f} GiB</td></tr>'
        for name, size in sorted(held.items(), key=lambda row: -row[1])
    )
    shown = (
        f'<div style="{_BAR}" aria-hidden="true">{bar}</div><table style="color:inherit">{rows}</table>' if held else ""
    )
    said = "".join(f"<div>{escape(line)}</div>" for line in lines)
    return f'<div style="{_BOX}"><div><b>{escape(title)}</b></div>{said}{shown}</div>'


def _colour(name: str) -> str:
    return COLOURS.get(name, "#8a8f98")


def _plain(name: str) -> str:
    return name.removesuffix("_bytes").replace("_", " ")
