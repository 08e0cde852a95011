"""The planner's sentences, from `locales/`."""

from __future__ import annotations

from typing import Final

from loralens.core.texts import Texts

TEXTS: Final = Texts(__package__)
