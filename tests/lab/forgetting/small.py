"""A plan of some seconds: a real base of 12,000 parameters, all arms, three seeds."""

from __future__ import annotations

from loralens.lab.forgetting.plan import Design, make_arms
from loralens.lab.tiny.checkpoints import BasePreset
from loralens.lab.tiny.model import TinyConfig
from loralens.lab.tiny.train import TrainConfig

SMALL = Design(
    budget="quick",
    seconds=600,
    preset=BasePreset(
        "small",
        TinyConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2
        ),
        TrainConfig(steps=100, batch_size=8, sequence_length=32, learning_rate=2e-2, warmup_steps=10, decay=True),
    ),
    arms=make_arms((1, 4), 4, 16),
    seeds=(0, 1, 2),
    rates={"full": (3e-3, 1e-2), "lora": (1e-2, 3e-2), "full_rank": (3e-3, 1e-2)},
    sweep_steps=8,
    evaluation_steps=(4, 12, 28),
    batch_size=8,
    sequence_length=32,
    windows=6,
    ranks=(0, 1, 4, 16),
    cost_steps=2,
)
