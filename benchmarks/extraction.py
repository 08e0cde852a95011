"""How much memory it takes to extract a LoRA out of a full fine-tune of a large model.

    python benchmarks/extraction.py --layers 32 --rank 16

Two folders of shards are written, in the shapes of Llama-2-7B: bfloat16, one shard for each layer, the second folder with a
change of rank 8 in every linear layer. The command line extracts an adapter in a process of its own; its largest resident
memory is what the system says of it. 32 layers take 25 GiB of disk while it runs.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file

WIDTH: Final = 4096
INNER: Final = 11008
VOCABULARY: Final = 32000
LINEAR: Final = {
    **{f"self_attn.{name}_proj": (WIDTH, WIDTH) for name in "qkvo"},
    "mlp.gate_proj": (INNER, WIDTH),
    "mlp.up_proj": (INNER, WIDTH),
    "mlp.down_proj": (WIDTH, INNER),
}
"""Source: meta-llama/Llama-2-7b-hf config.json."""
CHANGE_RANK: Final = 8


def write(root: Path, layers: int) -> None:
    """The folders `base` and `tuned`. Weights are parts of one random table: their numbers do not matter, their shapes do."""
    generator = torch.Generator().manual_seed(0)
    table = (torch.randn(INNER, INNER, generator=generator) * 0.02).bfloat16()
    shards: dict[str, dict[str, str]] = {"base": {}, "tuned": {}}
    for place in shards:
        (root / place).mkdir()

    def put(file: str, place: str, tensors: dict[str, torch.Tensor]) -> None:
        save_file(tensors, root / place / file, metadata={"format": "pt"})
        shards[place] |= dict.fromkeys(tensors, file)

    for layer in range(layers):
        base, tuned = {}, {}
        for name, (rows, columns) in LINEAR.items():
            weight = torch.roll(table, 37 * layer, 1)[:rows, :columns].contiguous()
            left = torch.randn(rows, CHANGE_RANK, generator=generator)
            right = torch.randn(CHANGE_RANK, columns, generator=generator)
            key = f"model.layers.{layer}.{name}.weight"
            base[key], tuned[key] = weight, (weight.float() + 1e-3 * left @ right).bfloat16()
        for place, tensors in (("base", base), ("tuned", tuned)):
            put(f"model-{layer:05}.safetensors", place, tensors)
    ends = {
        name: torch.zeros(VOCABULARY, WIDTH, dtype=torch.bfloat16)
        for name in ("model.embed_tokens.weight", "lm_head.weight")
    }
    for place, found in shards.items():
        put("model-ends.safetensors", place, ends)
        (root / place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": found}))


def main() -> int:
    """Write, extract, and say what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--rank", type=int, default=16)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="loralens-extraction-") as name:
        root = Path(name)
        write(root, chosen.layers)
        begun = time.perf_counter()
        words = ["adapter", "extract", "base", "tuned", "adapter", "--rank", str(chosen.rank), "--json"]
        done = subprocess.run([sys.executable, "-m", "loralens", *words], cwd=root, capture_output=True, check=True)
        seconds = time.perf_counter() - begun
        read = sum(path.stat().st_size for place in ("base", "tuned") for path in (root / place).iterdir())
    answer = json.loads(done.stdout)
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"{len(answer['layers'])} matrices of {read / 2**30:.1f} GiB, rank {answer['rank']}, {seconds:.0f} s")
    print(f"at most {memory:.2f} GiB of memory; relative error {answer['relative_error']:.2g}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
