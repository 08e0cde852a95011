"""TRL's other trainers in a Python script: what they learn from, and where completions come from.

Source: trl 1.16.0 trainer/dpo_config.py, kto_config.py, reward_config.py, grpo_config.py.
"""

from __future__ import annotations

from typing import Final

from loralens.trainers.reading import NOTHING, Reading

CONFIGS: Final = {"DPOConfig": "dpo", "KTOConfig": "kto", "RewardConfig": "reward", "GRPOConfig": "grpo"}
COMPLETION: Final = 256  # max_completion_length
PROMPT: Final = 512  # max_prompt_length, a setting until 1.0; prompts are as long as they are since
UTILIZATION: Final = 0.3  # vllm_gpu_memory_utilization


def objective(r: Reading) -> None:
    """The objective that the script's config names, and its words; nothing where it is supervised fine-tuning."""
    for name, kind in CONFIGS.items():
        if r.setting(f"call.{name}"):
            r.say("objective", kind, f"call.{name}")
            if kind in ("dpo", "kto"):
                _reference(r)
            elif kind == "grpo":
                _completions(r, f"call.{name}")


def _reference(r: Reading) -> None:
    if r.true("args.precompute_ref_log_probs"):
        r.say("reference", "precomputed", "args.precompute_ref_log_probs")
    elif r.get("trainer.ref_model") not in (*NOTHING, "=None"):
        r.say("reference", "copy", "trainer.ref_model")


def _completions(r: Reading, call: str) -> None:
    prompt, completion = "args.max_prompt_length", "args.max_completion_length"
    length = r.whole(completion, None) or COMPLETION
    r.say("labelled_tokens", length, completion, call)
    r.say("sequence_length", length + (r.whole(prompt, None) or PROMPT), prompt, completion, call)
    if r.get("args.beta") not in (*NOTHING, 0.0):
        r.say("reference", "copy" if r.method == "full" else "adapter", "args.beta")
    if not r.true("args.use_vllm"):
        r.say("rollout", "transformers", call)
    elif r.get("args.vllm_mode") == "server":
        r.say("rollout", "server", "args.use_vllm", "args.vllm_mode")
    else:
        share = r.get("args.vllm_gpu_memory_utilization")
        r.say("rollout", "vllm", "args.use_vllm", "args.vllm_mode")
        r.say(
            "gpu_memory_utilization",
            share if isinstance(share, float) else UTILIZATION,
            "args.vllm_gpu_memory_utilization",
            "args.use_vllm",
        )
        r.say(
            "sleep_level",
            2 if r.true("args.vllm_enable_sleep_mode") else 0,
            "args.vllm_enable_sleep_mode",
            "args.use_vllm",
        )
