"""Mamba 2: a chunked scan with a scalar state matrix for each head.

Source: transformers 5.23, models/mamba2/modeling_mamba2.py.
"""

from __future__ import annotations

from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import PartNames
from loralens.core.architecture.families.mamba import Mamba, MambaBlock
from loralens.core.architecture.families.state_space import MAX_GROUPS, MAX_KERNEL, HeadedMixer, mixers_as
from loralens.core.architecture.shape import Shape
from loralens.core.errors import InvalidInput
from loralens.core.question.recipe import Recipe
from loralens.core.tape.parameter import Parameter


class Mamba2(Mamba):
    """The causal language model."""

    turn: int | None = None
    default_targets: tuple[str, ...] = ("in_proj",)

    def __init__(self, config: Config) -> None:
        own = {"num_attention_heads": 1, "num_key_value_heads": 1, "intermediate_size": 1, "head_dim": 1}
        s = Shape.read(config.over({**own, "num_heads": None})).with_rotated(0)
        inner = config.integer("expand", default=2, high=1_024) * s.hidden
        heads, width = config.integer("num_heads", default=128, high=MAX_GROUPS), config.integer("head_dim", default=64)
        groups = config.integer("n_groups", default=8, high=MAX_GROUPS)
        if heads * width != inner:
            raise InvalidInput(
                f"config.num_heads {heads} times head_dim {width} must be expand * hidden_size, {inner}",
                field="config.num_heads",
                hint="compare with the model's config.json on the Hub",
            )

        def layer(_: object) -> MambaBlock:
            mixer = HeadedMixer(
                s.hidden,
                inner,
                heads,
                config.integer("state_size", default=128),
                groups,
                config.integer("conv_kernel", default=4, high=MAX_KERNEL),
                bias=config.flag("use_bias", False),
                conv_bias=config.flag("use_conv_bias", True),
                chunk=config.integer("chunk_size", default=256, high=MAX_GROUPS),
                norm_groups=groups,
            )
            return MambaBlock(s.hidden, mixer, wide=config.flag("residual_in_fp32", True))

        self.assemble(s, layer, s.windows, names=PartNames("backbone", "embeddings", norm="norm_f"))

    def unreached(self) -> list[Parameter]:
        """None."""
        return []

    def assumptions(self, recipe: Recipe) -> list[str]:
        """Which kernels run."""
        return [*super(Mamba, self).assumptions(recipe), mixers_as(recipe)]
