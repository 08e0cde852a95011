"""Exported configs, read by the trainers' own packages: their pydantic schemas, dataclasses and argument parsers.

    python tests/trainers/schemas.py write FOLDER        # here: forty configs of each trainer, of random recipes
    python tests/trainers/schemas.py axolotl FOLDER      # in an environment with axolotl: every file of FOLDER/axolotl

A trainer's package alone is needed for the second; no model is loaded, and no GPU is looked at.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import sys
import typing
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml

COUNT: Final = 40
Keys = dict[str, Any]


def write(folder: Path) -> None:
    """Configs of random recipes, each trainer's in a folder of its name."""
    import random

    from trainers.roundtrip import OTHERS, bodies

    from loralens.core.errors import InvalidInput
    from loralens.trainers.export import export_answer

    for name in CHECKS:
        (folder / name).mkdir(parents=True, exist_ok=True)
        written = 0
        for body in bodies(random.Random(11), OTHERS.get(name, 0.0)):
            model = (
                {"model": "meta-llama/Llama-3.2-1B"} if name == "torchtune" else {}
            )  # Qwen has no builder of QLoRA there
            try:
                answer = export_answer({**body, **model, "to": name})
            except InvalidInput:
                continue
            (folder / name / f"{written:03d}_{answer['file']}").write_text(answer["text"])
            written += 1
            if written == COUNT:
                break


def axolotl(keys: Keys, path: Path) -> None:
    """Every field by its pydantic schema, with the validators that look at several."""
    from axolotl.utils.schemas.config import AxolotlInputConfig

    own = {"datasets": [{"path": "x", "type": "alpaca"}], "learning_rate": 1e-4, "num_epochs": 1}
    unknown = set(keys) - set(AxolotlInputConfig.model_fields) - PLUGINS
    assert not unknown, f"no fields: {unknown}"
    AxolotlInputConfig.model_validate({**own, **{key: keys[key] for key in keys if key not in PLUGINS}})


PLUGINS: Final = {
    "liger_rms_norm", "liger_rope", "liger_glu_activation", "liger_layer_norm", "liger_cross_entropy", "cut_cross_entropy",
    "liger_fused_linear_cross_entropy",
}  # fmt: skip
"""Fields that Axolotl's plugins add (integrations/liger/args.py, integrations/cut_cross_entropy/args.py)."""


def llama_factory(keys: Keys, path: Path) -> None:
    """Names and kinds of the dataclasses that `llamafactory-cli train` parses."""
    os.environ["DISABLE_VERSION_CHECK"] = "1"
    from llamafactory.hparams import DataArguments, FinetuningArguments, ModelArguments, TrainingArguments

    _fields(keys, ModelArguments, DataArguments, TrainingArguments, FinetuningArguments)


def ms_swift(keys: Keys, path: Path) -> None:
    """Names and kinds of the dataclass that `swift sft` parses."""
    from swift.arguments import SftArguments

    _fields(keys, SftArguments)


def trl(keys: Keys, path: Path) -> None:
    """The command's own parser of a config file, and its dataclasses made from it."""
    import trl as package

    kind = next((one for one in ("dpo", "kto", "grpo") if one in path.name), "sft")
    config = getattr(package, f"{kind.upper()}Config")
    if keys.keys() & {"deepspeed", "fsdp"}:  # which look for several processes
        return _fields(keys, config, package.ModelConfig, package.ScriptArguments)
    parser = package.TrlParser((package.ScriptArguments, config, package.ModelConfig))
    found = parser.parse_args_and_config(args=["--config", str(path), "--use_cpu", "true"], fail_with_unknown_args=True)
    assert len(found) == 3
    return None


def torchtune(keys: Keys, path: Path) -> None:
    """`tune validate`: each component takes the arguments that the file gives it. The loss of 0.7 is not in 0.6.1."""
    from omegaconf import OmegaConf
    from torchtune import config

    if keys["loss"]["_component_"].endswith("LinearCrossEntropyLoss"):
        del keys["loss"]
    config.validate(OmegaConf.create(keys))


def litgpt(keys: Keys, path: Path) -> None:
    """The command's own parser, made from its function's signature."""
    from jsonargparse import ArgumentParser
    from litgpt.finetune import full, lora

    parser = ArgumentParser()
    parser.add_function_arguments((lora if "lora_r" in keys else full).setup)
    parser.parse_object(keys)


def _fields(keys: Keys, *kinds: type) -> None:
    fields = {field.name: (kind, field) for kind in kinds for field in dataclasses.fields(kind)}
    for key, value in keys.items():
        assert key in fields, f"no field: {key}"
        kind, field = fields[key]
        allowed = _kinds(typing.get_type_hints(kind).get(key, Any))
        assert not allowed or isinstance(value, tuple(allowed)), f"{key}={value!r} is none of {allowed}"
        choices = field.metadata.get("choices")
        assert not choices or value in choices, f"{key}={value!r} is none of {choices}"


def _kinds(hint: Any) -> set[type]:
    """The plain types that a hint takes, as YAML gives them; none where it is not said."""
    if typing.get_origin(hint) is typing.Literal:
        return {type(value) for value in typing.get_args(hint)}
    if typing.get_origin(hint) in (list, dict):
        return {typing.get_origin(hint), str}
    if inspect.isclass(hint):
        return {str} if issubclass(hint, str) else {int, float} if hint is float else {hint}
    parts = [_kinds(part) for part in typing.get_args(hint)]
    return set() if not parts or not all(parts) else set().union(*parts)


CHECKS: Final[dict[str, Callable[[Keys, Path], None]]] = {
    "axolotl": axolotl, "llama-factory": llama_factory, "ms-swift": ms_swift, "trl": trl, "torchtune": torchtune,
    "litgpt": litgpt,
}  # fmt: skip


def check(name: str, folder: Path) -> int:
    """How many files the package takes, and why it refuses the others."""
    said: Counter[str] = Counter()
    files = sorted((folder / name).iterdir())
    for path in files:
        try:
            CHECKS[name](yaml.safe_load(path.read_text()), path)
        except ImportError:
            raise
        except (Exception, SystemExit) as refused:
            said[f"{type(refused).__name__}: {' '.join(str(refused).split())[:300]}"] += 1
            print(f"{path.name}: {' '.join(str(refused).split())[:400]}", file=sys.stderr)
    print(f"| {name} | {len(files) - sum(said.values())} of {len(files)} |")
    return 1 if said else 0


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    else:
        sys.exit(check(sys.argv[1], Path(sys.argv[2])))
