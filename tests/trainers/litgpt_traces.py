"""LitGPT's loop on fake CUDA tensors: `python tests/trainers/litgpt_traces.py LITGPT/utils.py STEPS`.

Appends training steps to a file of JSON lines (`tests/oracles/traced-loops.jsonl`). The model is transformers'; head, list and loss are
LitGPT's: pieces of 128 tokens, made float32 as Lightning Fabric does, and `chunked_cross_entropy` out of its own file (0.5.13), which
is not imported, as it asks for Lightning.
"""

from __future__ import annotations

import ast
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft  # noqa: F401  # it registers bitsandbytes' operators
import torch

from loralens.core.question.recipe import Recipe
from loralens.lab.trace import build, step
from loralens.lab.trace.case import summarize
from loralens.lab.trace.grid_cases import small_config

KEPT = ("trainable", "total", "phase", "peak_allocated_bytes", "phase_peaks")
CHUNK = 128
LORA = {"rank": 8, "target_modules": "all-linear"}
WORDS = {
    "lora": ("lora", {"autocast": None, "lora": {**LORA, "adapter_dtype": "bfloat16"}}),
    "lora-mixed": ("lora", {"weights_dtype": "float32", "lora": LORA}),
    "full": ("full", {"autocast": None, "optimizer": "adamw_foreach"}),
}


def loss_of(path: str) -> Any:
    """`chunked_cross_entropy`, and nothing else of the file."""
    tree = ast.parse(Path(path).read_text("utf-8"))
    (found,) = (
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "chunked_cross_entropy"
    )
    names: dict[str, Any] = {"torch": torch}
    exec(compile(ast.Module([found], []), path, "exec"), names)
    return names[found.name]


class Fit:
    """The loop of finetune/lora.py, up to the loss."""

    def __init__(self, loss: Any) -> None:
        self.loss, self.logits = loss, []

    def __call__(self, model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model

        def forward() -> list[torch.Tensor]:
            hidden = base.model(batch["input_ids"], use_cache=False).last_hidden_state
            return [base.lm_head(piece) for piece in hidden.split(CHUNK, dim=1)]

        def fabric() -> list[torch.Tensor]:
            return [piece.to(torch.float32) for piece in forward()]

        self.logits = fabric()
        self.logits[-1] = self.logits[-1][..., :-1, :]
        with torch.autocast("cuda", enabled=False):  # Fabric's ends with the model's forward
            loss: torch.Tensor = self.loss(self.logits, batch["labels"][..., 1:])
        return loss


def main(source: str, path: str) -> int:
    loss = loss_of(source)
    with Path(path).open("a", encoding="utf-8") as file:
        for name in ("llama-3.2-1b", "qwen2.5-0.5b", "smollm2-135m"):
            config = {**small_config(name, 2), "tie_word_embeddings": False}
            for word, (method, own) in WORDS.items():
                shape = {"micro_batch_size": 2, "sequence_length": 512, "gradient_checkpointing": False}
                recipe = {"loss": "litgpt", **shape, **own}
                asked = replace(Recipe.from_mapping(recipe), loss="full", keep_outputs=True)
                found = summarize(*step.run(build.read_config(config), method, asked, Fit(loss))).to_dict()
                request = {"config": config, "method": method, "recipe": recipe}
                row = {"name": f"{name}/litgpt-{word}", "loop": "litgpt", "request": request}
                row["expected"] = {key: found[key] for key in KEPT}
                file.write(json.dumps(row, separators=(",", ":")) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
