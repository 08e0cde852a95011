"""Long work as jobs: plain generators that yield JSON-able events.

submit(kind="adapters", function="loralens.lab.adapters.job:train", spec={"preset": "standard", "folder": "…"})
submit(kind="adapters", function="loralens.lab.adapters.job:switching", spec={"layers": 2, "folder": "…"})
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loralens.lab.adapters import training
from loralens.lab.adapters.shapes import shapes_hub
from loralens.lab.adapters.switching import measure_switching


def train(spec: Mapping[str, Any]) -> Iterator[dict[str, object]]:
    """Train the hub of a preset below `folder`, or find it trained."""
    yield from training.train(Path(spec["folder"]), training.recipe_named(str(spec.get("preset", "standard"))))


def switching(spec: Mapping[str, Any]) -> Iterator[dict[str, object]]:
    """Measure switching on Llama-2-7B shapes; the temporary files lie below `folder` and are removed."""
    layers = int(spec.get("layers", 4))
    yield {"type": "progress", "stage": "writing weights", "step": 0, "steps": 1}
    with shapes_hub(Path(spec["folder"]), layers, rank=int(spec.get("rank", 8))) as hub:
        for event in measure_switching(hub, float(spec.get("seconds", 20.0))):
            yield event | {"base": hub.base.name, "layers": layers} if event["type"] == "result" else event
