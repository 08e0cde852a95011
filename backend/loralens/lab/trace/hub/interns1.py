"""Intern-S1: InternVL's model by another name; its own code is derived from transformers' InternVL.

Source: internlm/Intern-S1, modeling_interns1.py (`modular_interns1.py` names what each class is derived from). Its drop path does
nothing at the published rate of 0.
"""

from __future__ import annotations

from transformers.models.internvl.configuration_internvl import InternVLConfig
from transformers.models.internvl.modeling_internvl import InternVLForConditionalGeneration


class InternS1Config(InternVLConfig):
    """Its name."""

    model_type = "interns1"


class InternS1(InternVLForConditionalGeneration):
    """The whole model."""

    config_class = InternS1Config
