"""Models whose code lies beside their weights, retold in torch: what their own modelling code runs, so that it can be traced.

Each module names the code it was written after. `register` makes transformers build them; nothing of theirs is run or fetched.
`python -m lab.remote.record FILE` traces the cases of `cases.py`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

MODULES = ("bailing", "chatglm", "deepseek", "internlm2", "minicpm")


@cache
def register() -> None:
    """Give transformers a configuration and a causal language model for each model type."""
    from transformers import AutoConfig, AutoModelForCausalLM

    for name in MODULES:
        for model in import_module(f"lab.remote.{name}").MODELS:
            AutoConfig.register(model.config_class.model_type, model.config_class)
            AutoModelForCausalLM.register(model.config_class, model)
