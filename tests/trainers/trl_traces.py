"""TRL's own losses on fake CUDA tensors: `python tests/trainers/trl_traces.py STEPS EVALUATIONS`, in an environment with trl and datasets.

Appends whole training steps of `SFTTrainer.compute_loss` and evaluations of four trainers, as the installed version has them, to
two files of JSON lines (`tests/oracles/traced-loops.jsonl` and `traced-evaluations.jsonl` hold 1.10, 1.13 and 1.16). Triton kernels
that write in place are left out; every label counts, which is told where TRL reads it from the card.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peft  # noqa: F401  # it registers bitsandbytes' operators
import torch
from torch.overrides import TorchFunctionMode

from loralens.core.question.recipe import Recipe
from loralens.lab.trace import build, peaks, step
from loralens.lab.trace.case import summarize
from loralens.lab.trace.grid_cases import small_config

KEPT = ("trainable", "total", "phase", "peak_allocated_bytes", "phase_peaks")
ALL = {"rank": 8, "target_modules": "all-linear"}
STEPS = {
    "lora": ("lora", {"lora": ALL}), "full": ("full", {"autocast": None}), "full-float32": ("full", {"weights_dtype": "float32"}),
    "lora-whole": ("lora", {"lora": ALL, "gradient_checkpointing": False, "autocast": None}),
    "qlora": ("qlora", {"lora": {**ALL, "adapter_dtype": "bfloat16"}, "quantization": {"type": "nf4", "prepare_kbit": False}}),
}  # fmt: skip
MODELS = ("llama-3.2-1b", "qwen2.5-0.5b")
EVALUATED = {
    "sft-loss": {"evaluation": {"samples": 8, "batch_size": 4}},
    "sft-best": {"evaluation": {"samples": 12, "batch_size": 4, "metrics": "best"}},
    "sft-logits": {"evaluation": {"samples": 12, "batch_size": 4, "metrics": "logits"}},
    "dpo": {"objective": "dpo", "evaluation": {"samples": 8, "batch_size": 4}},
    "dpo-precomputed": {"objective": {"type": "dpo", "reference": "precomputed"}, "evaluation": {"samples": 8, "batch_size": 4}},
    "kto": {"objective": "kto", "evaluation": {"samples": 8, "batch_size": 4}},
    "reward": {"objective": "reward", "loss": "full", "evaluation": {"samples": 8, "batch_size": 4}},
}  # fmt: skip


class Count(int):
    """How many labels count, where TRL computes with it on the card."""

    def __truediv__(self, other: Any) -> Any:
        return Chunks(int(self) / other)

    def clamp(self, min: int = 0) -> Count:
        return Count(max(self, min))


class Chunks(float):
    """A number of chunks on its way to a whole one."""

    def ceil(self) -> Chunks:
        return Chunks(-(-self // 1))

    def clamp(self, min: int = 0) -> Chunks:
        return Chunks(max(self, min))

    def to(self, _: Any) -> int:
        return int(self)


class EveryLabelCounts(TorchFunctionMode):
    """Answers for a mask that is all true: rows taken by it, and its sum."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nonzero:  # half of KTO's rows are wanted ones
            return torch.zeros((args[0].numel() // 2, 1), dtype=torch.int64, device=args[0].device)
        mask = args[-1] if func is torch.Tensor.__getitem__ else args[0] if func is torch.Tensor.sum else None
        if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool:
            return func(*args, **(kwargs or {}))
        if func is torch.Tensor.__getitem__:
            rows = torch.zeros((mask.numel(), mask.dim()), dtype=torch.int64, device=mask.device)
            return args[0][tuple(rows.unbind(1))]
        found = func(*args, **(kwargs or {}))
        whole = CHUNKED and len(args) == 1 and mask.dim() == 1 and mask.numel() > 256  # not a chunk's own
        return Count(mask.numel()) if whole else found


class NoKernel:
    """A kernel of Triton's that writes into what it is given."""

    def __getitem__(self, _: Any) -> Callable[..., None]:
        return lambda *args, **kwargs: None


def ones(_: Any = None) -> torch.Tensor:
    """A number that is logged."""
    return torch.ones((), device="cpu")


def trainer_of(name: str, **words: Any) -> Any:
    """A trainer of TRL's with what its loss reads, and nothing else."""
    made = getattr(import_module("trl"), name)
    bare = made.__new__(made)
    accelerator = SimpleNamespace(parallelism_config=None, gather_for_metrics=ones, gather=ones, num_processes=1,
                                  device=torch.device("cuda"), unwrap_model=lambda model: model)  # fmt: skip
    args = SimpleNamespace(use_liger_kernel=False, loss_type=LOSS, average_tokens_across_devices=False, past_index=-1,
                           gradient_checkpointing_kwargs=None, prediction_loss_only=False, center_rewards_coefficient=None)  # fmt: skip
    vars(bare).update(
        accelerator=accelerator, args=args, label_smoother=None, compute_loss_func=None, compute_metrics=None,
        model_accepts_loss_kwargs=True, aux_loss_enabled=False, num_virtual_tokens=0, preprocess_logits_for_metrics=None,
        _metrics={mode: defaultdict(list) for mode in ("train", "eval")}, _total_train_tokens=0, _tp_size=1,
        ld_alpha=None, precompute_ref_logps=False, ref_model=None, f_divergence_type="reverse_kl", loss_types=["sigmoid"],
        loss_weights=[1.0], loss_type="kto", beta=0.1, label_smoothing=0.0, use_weighting=False, calculate_KL=True,
        desirable_weight=1.0, undesirable_weight=1.0,
    )  # fmt: skip
    vars(bare).update(words)
    return bare


def headed(model: Any) -> None:
    """TRL's head in the model's place."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if getattr(base, "has_trls_head", False):
        return
    base.has_trls_head = True
    if CHUNKED:
        import_module("trl.trainer.sft_trainer")._patch_chunked_ce_lm_head(base, 256)
    else:
        asked = ("log_probs", "entropy", "mean_logits", "is_top1")
        import_module("trl.trainer.utils").add_fused_lm_head(base, outputs=asked)


class Sft:
    """`SFTTrainer.compute_loss`."""

    def __init__(self) -> None:
        self.trainer = trainer_of("SFTTrainer")

    def __call__(self, model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        headed(model)
        self.trainer.model = model
        items = torch.ones((), device="cpu", dtype=torch.int64) if CHUNKED else None
        with EveryLabelCounts():
            loss: torch.Tensor = self.trainer.compute_loss(model, dict(batch), num_items_in_batch=items)
        return loss


def steps() -> Iterator[dict[str, Any]]:
    """Whole training steps."""
    for name in MODELS:
        config = small_config(name, 2)
        for word, (method, own) in STEPS.items():
            loss = {"loss": "chunked_nll", "stack": {"trl": VERSION}} if CHUNKED else {"loss": "fused_head"}
            shape = {"padded": True, "micro_batch_size": 2, "sequence_length": 512, "gradient_checkpointing": True}
            recipe = {**shape, **loss, **own}
            asked = replace(Recipe.from_mapping(recipe), loss="full", stack=())
            found = summarize(*step.run(build.read_config(config), method, asked, Sft())).to_dict()
            request = {"config": config, "method": method, "recipe": recipe}
            expected = {key: found[key] for key in KEPT}
            yield {
                "name": f"{name}/trl-{VERSION}-{word}",
                "loop": f"trl-{VERSION}",
                "request": request,
                "expected": expected,
            }


def rows_of(batch: dict[str, torch.Tensor], word: str) -> dict[str, torch.Tensor]:
    """A batch as the trainer's collator makes it."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    if word.startswith("sft"):
        return {"input_ids": ids, "attention_mask": mask, "labels": batch["labels"]}
    if word == "reward":
        return {"input_ids": ids, "attention_mask": mask}
    made = {"input_ids": ids, "attention_mask": mask, "completion_mask": torch.ones_like(ids)}
    if word == "kto":
        made |= {f"KL_{name}": torch.ones_like(ids) for name in made}
        made["label"] = torch.ones(ids.shape[0], dtype=torch.bool, device="cpu")
    if word == "dpo-precomputed":
        made |= {
            f"ref_{which}_logps": torch.ones(ids.shape[0] // 2, device=ids.device) for which in ("chosen", "rejected")
        }
    return made


def evaluation(word: str, recipe: dict[str, Any]) -> Callable[[Any], None]:
    """What `prediction_step` does with each batch, in place of a step."""
    names = {"sft": "SFTTrainer", "dpo": "DPOTrainer", "kto": "KTOTrainer", "reward": "RewardTrainer"}
    metrics = recipe["evaluation"].get("metrics", "loss")

    def run(training: Any) -> None:
        from accelerate.utils.operations import convert_to_fp32
        from transformers.trainer_pt_utils import EvalLoopContainer

        model, trainer = (
            training.model,
            trainer_of(names[word.split("-")[0]], precompute_ref_logps=word.endswith("computed")),
        )
        if word != "reward":
            headed(model)
        model.eval()
        trainer.model = model
        kept = [EvalLoopContainer(do_nested_concat=True, padding_index=-100) for _ in range(2)]
        batch = rows_of(training.batch, word)
        training.batch = None
        training.ledger.begin("forward")

        class Wrapped:
            """accelerate's wrapper, which makes what the model returns float32."""

            def __call__(self, **words: Any) -> Any:
                with torch.autocast("cuda", dtype=torch.bfloat16):
                    found = model(**words)
                return convert_to_fp32(found)

        for _ in range(recipe["evaluation"]["samples"] // recipe["evaluation"]["batch_size"]):
            with torch.no_grad(), EveryLabelCounts():
                if metrics == "loss":
                    loss, outputs = trainer.compute_loss(Wrapped(), dict(batch)), None
                else:
                    loss, outputs = trainer.compute_loss(Wrapped(), dict(batch), return_outputs=True)
            del loss
            if outputs is not None:
                logits = outputs["logits"]
                del outputs
                kept[0].add(logits.argmax(dim=-1) if metrics == "best" else logits)
                kept[1].add(batch["labels"].clone())
                del logits

    return run


def evaluations() -> Iterator[dict[str, Any]]:
    """Peaks of evaluations beside all that training holds."""
    for name in MODELS:
        config = small_config(name, 2)
        for word, own in EVALUATED.items():
            loss = {"loss": "chunked_nll", "stack": {"trl": VERSION}} if CHUNKED else {"loss": "fused_head"}
            if CHUNKED and word != "sft-loss":
                continue
            recipe = {
                "padded": True,
                "sequence_length": 256,
                "gradient_checkpointing": True,
                "lora": ALL,
                **loss,
                **own,
            }
            pairs = word in ("dpo", "dpo-precomputed", "reward")
            traced = replace(
                Recipe.from_mapping({key: value for key, value in recipe.items() if key not in ("objective", "loss", "stack")}),
                micro_batch_size=recipe["evaluation"]["batch_size"] * (2 if pairs else 1),
                head="sequence_classification" if word == "reward" else None,
                num_labels=1 if word == "reward" else None,
            )  # fmt: skip
            ledger, _ = step.run(build.read_config(config), "lora", traced, act=evaluation(word, recipe))
            peak = peaks.phase_peaks(ledger.recorded())["forward"].live_bytes
            request = {"config": config, "method": "lora", "recipe": recipe}
            yield {
                "name": f"{name}/trl-{VERSION}-{word}",
                "request": request,
                "expected": {"peak_allocated_bytes": peak},
            }


def main(paths: list[str]) -> int:
    for module in ("trl.kernels.chunked_logprob", "trl.kernels.logprob_entropy"):
        if not CHUNKED:
            kernels = vars(import_module(module))
            kernels.update({name: NoKernel() for name in kernels if name.endswith("_kernel")})
    for path, made in zip(paths, (steps, evaluations), strict=True):
        with Path(path).open("a", encoding="utf-8") as file:
            for row in made():
                file.write(json.dumps(row, separators=(",", ":")) + "\n")
    return 0


if __name__ == "__main__":
    VERSION = ".".join(import_module("trl").__version__.split(".")[:2])
    CHUNKED = tuple(int(part) for part in VERSION.split(".")) < (1, 15)
    LOSS = "chunked_nll" if CHUNKED else "nll"
    sys.exit(main(sys.argv[1:]))
