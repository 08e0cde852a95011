"""GLM-4.7-Flash: DeepSeek-V3's latent attention with wider values, GLM-4.5's experts.

Source: transformers 5.23, models/glm4_moe_lite/modeling_glm4_moe_lite.py.
"""

from __future__ import annotations

from loralens.core.architecture.config import Config
from loralens.core.architecture.families.deepseek import DeepSeek
from loralens.core.architecture.families.state_space import layer_kinds
from loralens.core.errors import UnsupportedArchitecture


class Glm4MoeLite(DeepSeek):
    """The causal language model."""

    q_rank: int | None = 768
    shared, experts, chosen, width, dense = 1, 64, 4, 1536, 1

    def __init__(self, config: Config) -> None:
        dense = 1
        if config.has("mlp_layer_types"):
            layers = config.integer("num_hidden_layers")
            kinds = layer_kinds(config, ("mlp_layer_types",), ["dense"] * min(layers, 2_000), ("dense", "sparse"))
            dense = kinds.index("sparse") if "sparse" in kinds else len(kinds)
            if "dense" in kinds[dense:]:
                raise UnsupportedArchitecture(
                    "dense layers behind sparse ones are not modelled", field="config.mlp_layer_types"
                )
        super().__init__(config.over({"first_k_dense_replace": dense}, {"v_head_dim": 256, "qk_nope_head_dim": 192}))
