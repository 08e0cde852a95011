"""Models that transformers does not build: diffusion transformers, and what a local file builds. PEFT adapts them in place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final

import torch

from loralens.core.errors import InvalidInput
from loralens.core.question.recipe import Recipe

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Foreign(ABC):
    """A model with its own batch and loss; stands where a transformers config does."""

    model_type = ""
    is_encoder_decoder = False
    targets: tuple[str, ...] | None = None  # adapters where the recipe names none; None: it has to

    @abstractmethod
    def build(self) -> torch.nn.Module:
        """The model; called on the meta device."""

    @abstractmethod
    def batch(self, recipe: Recipe, dtype: torch.dtype) -> dict[str, Any]:
        """One micro batch on the fake GPU, the model's keyword arguments; pictures and states in `dtype`."""

    @abstractmethod
    def loss(self, model: Any, batch: dict[str, Any]) -> torch.Tensor:
        """One forward pass, up to the loss."""

    def adapted(self, method: str, recipe: Recipe) -> torch.nn.Module:
        """The model on the meta device, as the method trains it.

        Raises:
            InvalidInput: a method or a word that means nothing for such a model.
        """
        if method not in ("full", "lora", "dora") or recipe.quantization is not None:
            raise InvalidInput(
                "the base of a model that transformers does not build is not packed here: full, lora and dora are traced",
                field="method",
                hint="try method=lora",
            )
        with torch.device("meta"):
            model = self.build()
        whole = set(getattr(model, "_keep_in_fp32_modules", None) or ())  # as `from_pretrained` leaves them
        for name, parameter in model.named_parameters():
            if parameter.is_floating_point() and whole.isdisjoint(name.split(".")):
                parameter.data = parameter.data.to(DTYPES[recipe.weights_dtype])
        if method != "full":
            self._inject(model, method, recipe)
        if recipe.gradient_checkpointing:
            switch = getattr(model, "enable_gradient_checkpointing", None)
            switch = switch or getattr(model, "gradient_checkpointing_enable", None)
            if switch is None:
                raise InvalidInput("this model has no gradient checkpointing", field="recipe.gradient_checkpointing")
            switch()
        return model

    def _inject(self, model: torch.nn.Module, method: str, recipe: Recipe) -> None:
        from peft import LoraConfig, inject_adapter_in_model

        lora = recipe.lora
        targets = lora.target_modules or self.targets
        if targets is None:
            raise InvalidInput(
                "PEFT has no default target_modules for this model",
                field="recipe.lora.target_modules",
                hint="name them: target_modules=to_q,to_v",
            )
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=list(targets) if isinstance(targets, tuple) else targets,
            use_dora=lora.use_dora or method == "dora",
            use_rslora=lora.use_rslora,
        )
        try:
            with torch.device("meta"):
                inject_adapter_in_model(config, model)
        except ValueError as problem:
            raise InvalidInput(f"PEFT rejected the configuration: {problem}", field="lora.target_modules") from problem
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(DTYPES[lora.adapter_dtype])


def empty(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    """A tensor on the fake GPU."""
    return torch.empty(shape, dtype=dtype, device="cuda")
