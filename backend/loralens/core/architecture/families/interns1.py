"""Intern-S1: InternVL's tower and projector beside Qwen3's layers, dense or with experts.

Source: internlm/Intern-S1, configuration_interns1.py and modeling_interns1.py (as InternLM/xtuner has them), whose classes are derived
from transformers' models/internvl/modeling_internvl.py; pictures are cut as InternVL's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.architecture.families.internvl import InternVL
from loralens.core.errors import UnsupportedArchitecture

if TYPE_CHECKING:
    from loralens.core.architecture.config import Config
    from loralens.core.architecture.module import Module


class InternS1Media(InternVL):
    """The same tower, in which branches can be dropped; the published models drop none."""

    usual = "interns1_vision"
    origin = "Intern-S1's own code lives on the Hub: it is walked as transformers' InternVL, from which it is derived"

    def seen(self, outer: Config, v: Config) -> Module:
        """The tower.

        Raises:
            UnsupportedArchitecture: branches are dropped.
        """
        if v.number("drop_path_rate", 0.0, 0.0, 1.0) > 0:
            raise UnsupportedArchitecture(
                "a tower that drops branches is not modelled",
                field="config.vision_config.drop_path_rate",
                hint="the published models have drop_path_rate 0",
            )
        return super().seen(outer, v)
