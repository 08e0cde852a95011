"""What becomes of damaged adapter files: they are read and worked on in every way that there is, or refused in words.

    python benchmarks/mutated_adapters.py --files 20000 --seed 1

A file is one of the formats that are read, with a few bytes, lengths, names or settings changed. Counted are crashes (any
error that is none of ours), hangs (ten seconds of processor time, or two minutes on the clock), and files or folders left
behind. The same seed makes the same files.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import resource
import shutil
import signal
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save

from loralens.core.errors import LoraLensError
from loralens.lab.adapters.comparing import compare_adapters
from loralens.lab.adapters.doctor import diagnose
from loralens.lab.adapters.doctor.base import base_of
from loralens.lab.adapters.doctor.engines import ENGINES
from loralens.lab.adapters.files import read_adapter, write_adapter
from loralens.lab.adapters.folder import CONFIG_FILE, WEIGHTS_FILE
from loralens.lab.adapters.formats.torchtune import Heads
from loralens.lab.adapters.formats.writing import FORMATS, convert
from loralens.lab.adapters.inspect import inspect_adapter
from loralens.lab.adapters.kinds import without_spectrum
from loralens.lab.adapters.merging import COMBINATIONS, merge_adapters
from loralens.lab.adapters.plain import plain_adapter
from loralens.lab.adapters.resize import resize_adapter
from loralens.lab.adapters.stream import Weights

SECONDS: Final = 10
CLOCK_SECONDS: Final = 120
MODULES: Final = ("model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj")
CONFIG: Final = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "bias": "none"}
LLAMA: Final = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 64, "hidden_size": 16,
                "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
                "max_position_embeddings": 64}  # fmt: skip
HEADS: Final = Heads(query=4, key=4, head_dim=4)
VALUES: Final[tuple[Any, ...]] = (
    0, -1, 1, 3, 4096, 2**31, 2**63, 10**99, 0.5, 1e308, -0.0, True, False, None, "", "8", "all-linear", "(a+)+$", "lora",
    "ADALORA", "pissa", [], {}, ["q_proj"], [None], {"q_proj": 2}, {"v_proj": 0}, {"(": 1}, [["x"]],
)  # fmt: skip
KEYS: Final = (
    "r", "lora_alpha", "target_modules", "peft_type", "bias", "use_dora", "use_rslora", "lora_bias", "rank_pattern",
    "alpha_pattern", "modules_to_save", "exclude_modules", "init_lora_weights", "fan_in_fan_out", "target_parameters",
    "trainable_token_indices", "layers_to_transform", "base_model_name_or_path", "lora_parameters", "fine_tune_type",
)  # fmt: skip

Files = dict[str, bytes]


class Hang(BaseException):
    """Raised by the alarm."""


def sound() -> list[Files]:
    """One adapter in each form that is read."""
    generator = torch.Generator().manual_seed(0)
    a, b = ([torch.randn(*shape, generator=generator) * 0.1 for _ in MODULES] for shape in ((4, 16), (16, 4)))

    def named(stem: str, first: str, second: str, turned: bool = False) -> dict[str, torch.Tensor]:
        found = {}
        for module, one, two in zip(MODULES, a, b, strict=True):
            for end, tensor in ((first, one), (second, two)):
                found[f"{stem}{module}.{end}"] = (tensor.T if turned else tensor).contiguous()
        return found

    peft = named("base_model.model.", "lora_A.weight", "lora_B.weight")
    dora = {f"base_model.model.{module}.lora_magnitude_vector": torch.ones(16) for module in MODULES}
    saved = {"base_model.model.score.weight": torch.ones(2, 16)}
    unet = "lora_unet_mid_block_attentions_0_proj_in"
    kohya = {f"{unet}.lora_down.weight": a[0], f"{unet}.lora_up.weight": b[0], f"{unet}.alpha": torch.tensor(4.0)}
    tune = {
        name.replace("model.", "", 1).replace("self_attn", "attn"): t
        for name, t in named("", "lora_a.weight", "lora_b.weight").items()
    }
    rows = {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": torch.ones(2, 16)}
    experts = {
        f"base_model.model.model.layers.0.mlp.experts.lora_{role}.weight": torch.randn(*shape, generator=generator)
        * 0.1
        for role, shape in (("A", (12, 16)), ("B", (8, 12)))
    }
    adaptive = {name.removesuffix(".weight"): tensor for name, tensor in peft.items()}
    adaptive |= {f"base_model.model.{module}.lora_E": torch.ones(4, 1) for module in MODULES}
    mlx = {
        "fine_tune_type": "lora",
        "num_layers": 2,
        "lora_parameters": {"rank": 4, "scale": 2.0, "keys": ["self_attn.q_proj"]},
    }
    return [
        _folder("adapter_model.safetensors", peft, CONFIG),
        _folder("adapter_model.safetensors", peft | dora, CONFIG | {"use_dora": True}),
        _folder("adapter_model.safetensors", peft | saved, CONFIG | {"modules_to_save": ["score"]}),
        _folder("adapter_model.safetensors", peft, CONFIG | {"init_lora_weights": "pissa"}),
        _folder("adapter_model.safetensors", peft | rows, CONFIG | {"trainable_token_indices": [1, 2]}),
        _folder("adapter_model.safetensors", peft | experts, CONFIG | {"target_parameters": ["experts.down_proj"]}),
        _folder("adapter_model.safetensors", adaptive, CONFIG | {"peft_type": "ADALORA", "init_r": 4, "target_r": 2}),
        _folder("adapters.safetensors", named("", "lora_a", "lora_b", turned=True), mlx),
        _folder("style.safetensors", kohya, None),
        _folder(
            "pytorch_lora_weights.safetensors",
            {"unet.mid_block.lora_A.weight": a[0], "unet.mid_block.lora_B.weight": b[0]},
            None,
        ),
        _folder("adapter_0.safetensors", tune, {"r": 4, "lora_alpha": 8}),
    ]


def _folder(name: str, tensors: dict[str, torch.Tensor], config: dict[str, Any] | None) -> Files:
    files = {name: save({key: tensor.clone() for key, tensor in tensors.items()})}
    return files | ({} if config is None else {"adapter_config.json": json.dumps(config).encode()})


class Mutated:
    """Damaged adapters of one seed, one after the other, below a folder of their own."""

    def __init__(self, seed: int, root: Path) -> None:
        self._random = random.Random(seed)
        self._root = root
        self._sound = sound()
        self._base = base_of(config=LLAMA)
        (root / "good").mkdir()
        for name, content in self._sound[0].items():
            (root / "good" / name).write_bytes(content)
        self._good = read_adapter(root / "good")
        weights = {f"{module}.weight": torch.eye(16) + 0.1 for module in MODULES}
        (root / "good" / "model.safetensors").write_bytes(save(weights))
        self._weights = Weights(root / "good")
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.faults: list[str] = []

    def run(self, count: int) -> None:
        """Make and try so many files."""
        for number in range(count):
            folder = self._root / "given"
            folder.mkdir()
            for name, content in self._damaged().items():
                (folder / name).write_bytes(content)
            for what, work in self._operations(folder).items():
                self._try(f"{number} {what}", work)
            shutil.rmtree(folder)

    def _try(self, what: str, work: Callable[[], object]) -> None:
        try:
            with _alarm():
                work()
            self.outcomes["done"] += 1
        except LoraLensError:
            self.outcomes["refused"] += 1
        except Hang:
            self.faults.append(f"{what}: longer than {SECONDS} s of processor time")
        except Exception as error:  # that is what is looked for
            self.faults.append(f"{what}: {type(error).__name__}: {str(error)[:200]}")
        left = {path.name for path in self._root.iterdir()} - {"good", "given", "made"}
        if left:
            self.faults.append(f"{what}: left {sorted(left)}")
            for name in left:
                shutil.rmtree(self._root / name)
        shutil.rmtree(self._root / "made", ignore_errors=True)

    def _operations(self, folder: Path) -> dict[str, Callable[[], object]]:
        pick = self._random.choice
        engine, target, combination = pick([None, *ENGINES]), pick(FORMATS), pick(COMBINATIONS)
        started: dict[str, Any] = pick([{"initial": self._good}, {"base": self._weights}])

        def looked() -> None:
            if without_spectrum(folder / CONFIG_FILE, folder / WEIGHTS_FILE) is None:
                inspect_adapter(read_adapter(folder)).to_dict()

        return {
            "inspect": looked,
            "doctor": lambda: diagnose(folder, self._base, engine).to_dict(),
            "resize": lambda: write_adapter(resize_adapter(read_adapter(folder), rank=2).adapter, self._root / "made"),
            "compare": lambda: compare_adapters(read_adapter(folder), self._good).to_dict(),
            "merge": lambda: merge_adapters([read_adapter(folder), self._good], [1.0, 0.5], combination).to_dict(0),
            "plain": lambda: plain_adapter(read_adapter(folder), **started).to_dict(0),
            "convert": lambda: convert(folder, self._root / "made", target, heads=HEADS, alpha=8.0, layers=2),
        }

    def _damaged(self) -> Files:
        files = dict(self._random.choice(self._sound))
        for _ in range(self._random.randint(1, 3)):
            name = self._random.choice(list(files))
            change = self._random.choice(
                (self._bytes, self._cut, self._longer, self._config if name.endswith(".json") else self._header)
            )
            files[name] = change(files[name])
        if self._random.random() < 0.02:
            del files[self._random.choice(list(files))]
        return files

    def _bytes(self, content: bytes) -> bytes:
        changed = bytearray(content)
        for _ in range(self._random.randint(1, 8) if changed else 0):
            changed[self._random.randrange(len(changed))] = self._random.choice(
                (0, 255, 127, self._random.randrange(256))
            )
        return bytes(changed)

    def _cut(self, content: bytes) -> bytes:
        return content[: self._random.randrange(len(content) + 1)]

    def _longer(self, content: bytes) -> bytes:
        place = self._random.randrange(len(content) + 1)
        return content[:place] + self._random.randbytes(self._random.randint(1, 64)) + content[place:]

    def _config(self, content: bytes) -> bytes:
        try:
            config = json.loads(content)
        except (ValueError, RecursionError):
            return content
        if not isinstance(config, dict):
            return content
        key = self._random.choice((*config, *KEYS))
        if self._random.random() < 0.2:
            config.pop(key, None)
        else:
            config[key] = self._random.choice(VALUES)
        return json.dumps(config).encode()

    def _header(self, content: bytes) -> bytes:
        """One tensor's name, shape, number format or place changed."""
        try:
            length = struct.unpack("<Q", content[:8])[0]
            header = json.loads(content[8 : 8 + length])
            name = self._random.choice([key for key in header if key != "__metadata__"])
            entry = header.pop(name)
            what = self._random.randrange(5)
            if what == 0:
                name = self._random.choice(
                    (name[:-1], name + "x", name.replace("lora_A", "lora_B"), "", "../x", "é" * 40)
                )
            elif what == 1:
                entry["dtype"] = self._random.choice(("F64", "F16", "BF16", "I8", "I64", "F8_E4M3", "X", 3))
            elif what == 2:
                entry["shape"] = self._random.choice(
                    ([4], [16, 4], [4, 0], [2**40, 2**40], [-4, 16], [4, 4, 4], [], "x")
                )
            elif what == 3:
                entry["data_offsets"] = self._random.choice(([0, 256], [0, 2**63], [-1, 5], [8, 4], [0]))
            elif what == 4:
                header[self._random.choice(("__metadata__", "extra"))] = self._random.choice(VALUES)
            header[name] = entry
            text = json.dumps(header).encode()
            return struct.pack("<Q", len(text)) + text + content[8 + length :]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, struct.error):
            return content


@contextmanager
def _alarm() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hang

    timers = ((signal.SIGPROF, signal.ITIMER_PROF, SECONDS), (signal.SIGALRM, signal.ITIMER_REAL, CLOCK_SECONDS))
    before = [signal.signal(sign, ring) for sign, _, _ in timers]
    for _, timer, seconds in timers:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (sign, timer, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(sign, handler)


def main() -> int:
    """Try so many files and say what came of them; 1 where something is a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="loralens-mutated-") as root:
        mutated = Mutated(chosen.seed, Path(root))
        mutated.run(chosen.files)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{chosen.files} files of seed {chosen.seed}, {time.perf_counter() - begun:.0f} s, at most {memory} MiB")
    print(
        ", ".join(f"{count} {what}" for what, count in sorted(mutated.outcomes.items()))
        + f", {len(mutated.faults)} faults"
    )
    for fault in mutated.faults[:50]:
        print(fault)
    return 1 if mutated.faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
