"""TRL's scripts as they are exported, run: `python tests/trainers/trl_steps.py` in an environment with trl and datasets.

Each objective's script runs a real step on a tiny model. What it counts as trainable is what was computed, and its longest row is
as long as the recipe says.
"""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from loralens.planner.question import read_question
from loralens.trainers.export import export_answer

TINY = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 128,
    "max_position_embeddings": 128, "tie_word_embeddings": False,
}  # fmt: skip
LENGTH, COMPLETION = 48, 16
LORA = {"rank": 4, "target_modules": "all-linear"}
SHOWN = "lengths: "
"""What the script is made to print of each forward pass."""
WATCH = (
    "from transformers.models.llama.modeling_llama import LlamaModel as _Model\n_own = _Model.forward\n"
    "def _forward(self, input_ids=None, *a, **k):\n"
    f"    print('{SHOWN}', input_ids.shape[1])\n"
    "    return _own(self, input_ids, *a, **k)\n"
    "_Model.forward = _forward\n"
)


def tiny_model(folder: Path) -> Path:
    """Weights and a tokenizer of single letters."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

    words = {"<pad>": 0, "<eos>": 1, "<unk>": 2} | {chr(97 + n): 3 + n for n in range(26)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    fast.save_pretrained(folder)
    AutoModelForCausalLM.from_config(LlamaConfig(**TINY, pad_token_id=0, eos_token_id=1)).save_pretrained(folder)
    return folder


def body_of(kind: str, method: str) -> dict[str, Any]:
    """A small recipe in float32, as a processor can run it."""
    recipe: dict[str, Any] = {
        "objective": kind, "micro_batch_size": 2, "gradient_accumulation_steps": 2, "sequence_length": LENGTH,
        "weights_dtype": "float32", "autocast": None,
    }  # fmt: skip
    recipe |= {"lora": LORA} if method != "full" else {}
    recipe |= {"labelled_tokens": COMPLETION} if kind == "grpo" else {}
    return {"config": TINY, "method": method, "recipe": recipe}


def step(kind: str, method: str, folder: Path) -> tuple[int, int, int, str]:
    """Parameters that train, predicted and as the script counts them, the longest row, and what it printed."""
    body = body_of(kind, method)
    question, _ = read_question({**body, "recipe": {"trainer": "trl", **body["recipe"]}})
    text = export_answer({**body, "to": "trl-script"})["text"]
    named = next(line for line in text.splitlines() if line.startswith("MODEL = "))
    script = folder / f"{kind}_{method}.py"
    script.write_text(WATCH + text.replace(named, f"MODEL = {str(folder / 'tiny')!r}"))
    said = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.chdir(folder):
        warnings.simplefilter("ignore")
        runpy.run_path(str(script), run_name="__main__")
    lines = said.getvalue().splitlines()
    counted = next(line for line in lines if line.startswith("trainable parameters: "))
    longest = max(int(line.removeprefix(SHOWN)) for line in lines if line.startswith(SHOWN))
    trained = "train_loss" in said.getvalue()
    return (
        question.estimate().trainable_parameters,
        int(counted.rsplit(" ", 1)[1].replace(",", "")),
        longest,
        "ran" if trained else "?",
    )


def main() -> int:
    """A row for each objective; 1 where a figure differs."""
    os.environ["ACCELERATE_USE_CPU"] = "true"
    wrong = 0
    print("| objective | method | predicted | counted | longest row | |\n| --- | --- | ---: | ---: | ---: | --- |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny_model(folder / "tiny")
        for kind in ("sft", "dpo", "kto", "orpo", "grpo"):
            for method in ("lora", "full"):
                predicted, counted, longest, ran = step(kind, method, folder)
                print(f"| {kind} | {method} | {predicted:,} | {counted:,} | {longest} | {ran} |", flush=True)
                wrong += predicted != counted or longest != LENGTH or ran != "ran"
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
