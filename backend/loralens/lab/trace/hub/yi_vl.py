"""Yi-VL: LLaVA whose projector norms the result of each of its layers.

Source: hiyouga/LLaMA-Factory, src/llamafactory/model/model_utils/visual.py (`LlavaMultiModalProjectorForYiVL`), which stands in for
transformers' projector where the config says `is_yi_vl_derived_model`.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.activations import ACT2FN
from transformers.models.llava.modeling_llava import LlavaForConditionalGeneration


class YiNormedProjector(torch.nn.Module):
    """Two layers, a norm behind each; the norms have the names of layers."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        inputs, hidden = config.vision_config.hidden_size, config.text_config.hidden_size
        self.linear_1, self.linear_2 = torch.nn.Linear(inputs, hidden), torch.nn.LayerNorm(hidden)
        self.linear_3, self.linear_4 = torch.nn.Linear(hidden, hidden), torch.nn.LayerNorm(hidden)
        self.act = ACT2FN[config.projector_hidden_act]

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Shapes: (pictures, patches, inputs) to (pictures, patches, hidden)."""
        hidden = self.linear_1(states)
        hidden = self.linear_2(hidden)
        hidden = self.act(hidden)
        hidden = self.linear_3(hidden)
        hidden = self.linear_4(hidden)
        if hidden.dtype == torch.float32:
            narrow = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled() else self.linear_1.weight.dtype
            hidden = hidden.to(narrow)
        return hidden


class YiVL(LlavaForConditionalGeneration):
    """The whole model."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model.multi_modal_projector = YiNormedProjector(config)
