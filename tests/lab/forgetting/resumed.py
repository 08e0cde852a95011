"""The plan that is killed and resumed: as small as one can be that has every phase."""

from __future__ import annotations

from dataclasses import replace

from lab.forgetting.small import SMALL

from loralens.lab.tiny.checkpoints import BasePreset

PLAN = replace(
    SMALL,
    preset=BasePreset("resumed", SMALL.preset.config, replace(SMALL.preset.train, steps=20)),
    seeds=(0, 1),
    rates={"full": (3e-3, 1e-2), "lora": (3e-2,), "full_rank": (3e-3,)},
    evaluation_steps=(2, 4, 6),
    sweep_steps=2,
    windows=2,
    cost_steps=1,
)
