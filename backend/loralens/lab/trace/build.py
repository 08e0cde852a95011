"""From a config and a recipe to the real model on the fake GPU: transformers builds it, PEFT adapts it."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

import torch

from loralens.core.architecture.config import Config
from loralens.core.architecture.heads import OUTPUTS, head_of
from loralens.core.architecture.nested import trained_part
from loralens.core.architecture.tied_head import left_to_text
from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.question.presets import lists_linears
from loralens.core.question.quantization import Quantization
from loralens.core.question.recipe import Recipe
from loralens.lab.trace import hub, media, quantize
from loralens.lab.trace.families import model_class
from loralens.lab.trace.ledger import TraceLedger
from loralens.lab.trace.selective import selective

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MAX_LAYERS: Final = 256  # an assumption: twice the deepest published model; a trace runs each layer
_TASK_TYPES: Final = {
    "sequence_classification": "SEQ_CLS",
    "reward": "SEQ_CLS",
    "token_classification": "TOKEN_CLS",
    "question_answering": "QUESTION_ANS",
    "embedding": "FEATURE_EXTRACTION",
}
# keys that would fetch, run or override something; the recipe has its own words for them
_IGNORED: Final = ("auto_map", "quantization_config", "torch_dtype", "dtype", "_name_or_path", "transformers_version")


def read_config(given: Mapping[str, Any]) -> Any:
    """The transformers configuration object of a config.json; nothing is fetched, no remote code is run.

    Raises:
        InvalidInput: no `model_type`, or values that the family's own class refuses.
        UnsupportedArchitecture: transformers does not know the family.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    # a copy: transformers writes into nested values (`rope_scaling`)
    entries = {key: value for key, value in deepcopy(dict(trained_part(given))).items() if key not in _IGNORED}
    name = entries.pop("model_type", None)
    if not isinstance(name, str):
        raise InvalidInput("config.model_type is missing", field="config.model_type", hint="paste a whole config.json")
    found = CONFIG_MAPPING[name] if name in CONFIG_MAPPING else hub.config_class(name)
    if found is None:
        raise UnsupportedArchitecture(
            f"transformers does not know model_type {name!r:.60}",
            field="config.model_type",
            hint="see its list of models",
        )
    try:
        config = found(**entries)
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError, StrictDataclassError) as problem:
        text = str(problem).strip() or type(problem).__name__
        raise InvalidInput(
            f"config is refused by transformers: {text.splitlines()[-1].strip():.200}", field="config"
        ) from problem
    if left_to_text(Config(given)) and config.get_text_config() is not config:  # as the file's own head is kept
        config.tie_word_embeddings = config.get_text_config().tie_word_embeddings
    layers = getattr(config.get_text_config(), "num_hidden_layers", 0)
    if not isinstance(layers, int) or layers > MAX_LAYERS:
        raise InvalidInput(
            f"config.num_hidden_layers {layers!r:.20} has too many layers to trace; at most {MAX_LAYERS}",
            field="config.num_hidden_layers",
            hint="loralens memory computes it",
        )
    config.get_text_config().use_cache = config.use_cache = False
    if config.is_encoder_decoder:  # labels are shifted by this token; any id will do
        for word in ("decoder_start_token_id", "pad_token_id"):
            if getattr(config, word, None) is None:
                setattr(config, word, 0)
    return config


def head_for(config: Any, recipe: Recipe) -> str:
    """The head that the recipe asks for or the config names; its labels are written into the config."""
    head = head_of(config.to_dict(), recipe.head)
    if head in ("sequence_classification", "reward", "token_classification", "question_answering"):
        config.num_labels = OUTPUTS.get(head) or recipe.num_labels or config.num_labels
        if config.pad_token_id is None:  # which tokens are padding decides nothing but which one is read
            config.pad_token_id = 0
    return head


def build_on_meta(config: Any, recipe: Recipe) -> torch.nn.Module:
    """The model with the recipe's weights dtype and attention, on the meta device."""
    config.get_text_config().use_cache = config.use_cache = recipe.use_cache
    maker = model_class(config, head_for(config, recipe))
    implementation = "eager" if recipe.attention == "eager" else "sdpa"
    hub.take_attention(config, recipe.attention)
    untouched = deepcopy(config)  # what is asked for is written into it
    with torch.device("meta"):
        try:
            model = maker._from_config(config, dtype=DTYPES[recipe.weights_dtype], attn_implementation=implementation)
        except ValueError as problem:
            if "attention implementation" not in str(problem) and "scaled_dot_product" not in str(problem):
                raise InvalidInput(f"transformers cannot build this model: {problem}", field="config") from problem
            # what the parts that have SDPA take by themselves (Gemma 4's tower for sound has none)
            model = maker._from_config(untouched, dtype=DTYPES[recipe.weights_dtype])
    if recipe.weights_dtype == "float16":
        _keep_in_float32(model, getattr(model, "_keep_in_fp32_modules", None))
    _keep_in_float32(model, getattr(model, "_keep_in_fp32_modules_strict", None))
    return model


def _keep_in_float32(model: torch.nn.Module, modules: Any) -> None:
    """The modules that `from_pretrained` never holds in float16 (T5's `wo`), or in any 16 bits; building from a config forgets them.

    Source: transformers 5.23 modeling_utils.py, `_get_dtype_plan`.
    """
    whole = set(modules or ())
    for name, parameter in model.named_parameters():
        if quantize.kept_wide(name, whole):
            parameter.data = parameter.data.to(torch.float32)


def adapt(model: torch.nn.Module, method: str, recipe: Recipe) -> torch.nn.Module:
    """Apply the method: quantize and prepare the base, add the adapters, freeze, switch checkpointing on."""
    if method == "full":
        # what the model's own code freezes stays frozen (Whisper's sinusoids)
        for parameter in model.parameters():
            if not parameter.dtype.is_floating_point:
                parameter.requires_grad_(False)
        _freeze_first_layers(model, recipe)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and not media.keeps_out(model, recipe, name))
        if recipe.gradient_checkpointing:
            _checkpoint(model, recipe)
        return model
    from peft import LoraConfig, get_peft_model

    quantization = recipe.quantization or (Quantization() if method == "qlora" else None)
    if quantization is not None:
        quantize.quantize(model, quantization)
    if quantization is not None and quantization.prepare_kbit:
        _prepare_kbit(model, recipe)
    elif recipe.gradient_checkpointing:
        _checkpoint(model, recipe)
        model.enable_input_require_grads()  # type: ignore[operator]  # transformers types it as a module
    lora = recipe.lora
    usual = usual_targets(getattr(model.config, "model_type", None))
    targets = usual if lora.target_modules is None else lora.target_modules
    if targets == "all-linear" and lists_linears(recipe) and _has_stacked_experts(model):
        targets = _listed(model)
    config = LoraConfig(
        task_type=_TASK_TYPES.get(head_for(model.config, recipe)),
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(targets) if isinstance(targets, tuple) else targets,
        use_dora=lora.use_dora or method == "dora",
        use_rslora=lora.use_rslora,
        bias=lora.bias,
        modules_to_save=list(lora.modules_to_save) or None,
        exclude_modules=media.left_out(model, recipe),
        rank_pattern=dict(lora.rank_pattern),
        layers_to_transform=None if lora.layers_to_transform is None else list(lora.layers_to_transform),
        lora_bias=lora.lora_bias,
        target_parameters=list(lora.target_parameters) or None,
        trainable_token_indices=None if lora.trainable_token_indices is None else list(lora.trainable_token_indices),
        fan_in_fan_out=_all_conv1d(model),
    )
    try:
        with torch.device("meta"):
            adapted = get_peft_model(model, config, autocast_adapter_dtype=lora.adapter_dtype == "float32")
    except ValueError as problem:
        raise InvalidInput(f"PEFT rejected the configuration: {problem}", field="lora.target_modules") from problem
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad and "lora_" in name:
            parameter.data = parameter.data.to(DTYPES[lora.adapter_dtype])
        if lora.freeze_a and "lora_A" in name:  # what `peft.optimizers.create_lorafa_optimizer` does first
            parameter.requires_grad_(False)
    return adapted


def _has_stacked_experts(model: torch.nn.Module) -> bool:
    return any(parameter.dim() == 3 and ".experts." in name for name, parameter in model.named_parameters())


def _listed(model: torch.nn.Module) -> tuple[str, ...]:
    """The last names of all linear layers but the head, told by the name of their class, as some trainers list them."""
    head = model.get_output_embeddings()  # type: ignore[operator]  # transformers types it as a module
    linears = (name for name, part in model.named_modules() if "Linear" in type(part).__name__ and part is not head)
    return tuple(sorted({name.rsplit(".", 1)[-1] for name in linears}))


def usual_targets(model_type: str | None) -> str | None:
    """None where PEFT has a default for the family; else every linear layer."""
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN

    return None if model_type in KNOWN else "all-linear"


def _all_conv1d(model: torch.nn.Module) -> bool:
    from transformers.pytorch_utils import Conv1D

    return any(isinstance(module, Conv1D) for module in model.modules())


def _checkpoint(model: Any, recipe: Recipe) -> None:
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise InvalidInput(
            "this family has no gradient checkpointing in transformers", field="recipe.gradient_checkpointing"
        )
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=_form(recipe))


def _form(recipe: Recipe) -> dict[str, Any]:
    """Which form of checkpointing; transformers' own since version 5 when the recipe names none."""
    form: dict[str, Any] = {"use_reentrant": bool(recipe.checkpoint_reentrant)}
    return form | ({"context_fn": selective} if recipe.checkpoint_saves == "ops" else {})


def _prepare_kbit(model: Any, recipe: Recipe) -> None:
    from peft import prepare_model_for_kbit_training

    prepare_model_for_kbit_training(
        model,
        use_gradient_checkpointing=recipe.gradient_checkpointing,
        gradient_checkpointing_kwargs=_form(recipe),
    )


def _freeze_first_layers(model: torch.nn.Module, recipe: Recipe) -> None:
    """`trainable_layers` = n: only the last n layers (and what comes after them) train."""
    if recipe.trainable_layers is None:
        return
    from loralens.lab.trace.families import layer_list

    _, layers = layer_list(model)
    first = max(0, len(layers) - recipe.trainable_layers)
    trained = {id(p) for layer in layers[first:] for p in layer.parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in trained)


def to_fake_gpu(model: torch.nn.Module, ledger: TraceLedger, *, adapted: bool, dtype: torch.dtype) -> None:
    """Give every meta tensor an equal one on the fake GPU (ties kept) and book it."""
    moved: dict[int, torch.Tensor] = {}
    for path, module in model.named_modules(remove_duplicate=True):
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is None:
                    continue
                known = moved.get(id(tensor))
                if known is None:
                    with ledger.naming(_kind(tensor, table is module._parameters, adapted), f"{path}.{name}"):
                        packed = quantize.is_packed(tensor)
                        known = quantize.fresh(tensor, module, dtype, ledger) if packed else _fresh(tensor)
                        moved[id(tensor)] = known
                table[name] = known
    _loose_tensors(model, ledger)


def _fresh(tensor: torch.Tensor) -> torch.Tensor:
    data = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda")
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(data, requires_grad=tensor.requires_grad)
    return data


def _kind(tensor: torch.Tensor, is_parameter: bool, adapted: bool) -> str:
    if not is_parameter:
        return "buffer"
    return "adapter" if adapted and tensor.requires_grad else "weight"


def _loose_tensors(model: torch.nn.Module, ledger: TraceLedger) -> None:
    """Plain tensor attributes that are neither parameters nor buffers (`original_inv_freq`)."""
    for path, module in model.named_modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, torch.Tensor) and value.device.type == "meta":
                with ledger.naming("buffer", f"{path}.{name}"):
                    setattr(module, name, _fresh(value))
