"""What merging into a packed base costs: NF4 and back, layer by layer, beside merging into 16 bits.

An adapter that was trained on an NF4 base is an update of the base as it unpacks. Merged into 4 bits, base and update are
packed again; merged into 16 bits, they are rounded once. Both errors are stated as a share of the update itself.
Source: Dettmers et al. 2023, arXiv:2305.14314, appendix E and section 3 (NF4, blocks of 64); bitsandbytes-foundation/bitsandbytes
0.50.2 functional.py, quantize_4bit; huggingface/peft 0.21.2 tuners/lora/bnb.py, Linear4bit.merge. Leaves out: double
quantization, which rounds the blocks' scales to 8 bits.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Final

import torch

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.answers import MergeErrorAnswer, Severity
from loralens.lab.adapters.doctor.finding import SHOWN_MODULES, Finding
from loralens.lab.adapters.doctor.patient import Pair, Patient
from loralens.lab.adapters.stream import Weights

BLOCK: Final = 64
NF4: Final = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
_FLOATS: Final = frozenset({"F32", "F16", "BF16"})


@dataclass(frozen=True, slots=True)
class MergeError:
    """One module: the error that each way to merge leaves, relative to the update's norm."""

    module: str
    packed_again: float
    sixteen_bits: float
    into_the_original: float

    def to_dict(self) -> MergeErrorAnswer:
        """As it is printed and sent."""
        return {
            "module": self.module,
            "packed_again": self.packed_again,
            "sixteen_bits": self.sixteen_bits,
            "into_the_original": self.into_the_original,
        }


def nf4(weight: torch.Tensor) -> torch.Tensor:
    """A weight as NF4 gives it back, in float32; any shape, blocks of 64 numbers in the order of rows.

    >>> nf4(torch.tensor([0.5, -1.0, 0.0, 0.09])).tolist()
    [0.44070982933044434, -1.0, 0.0, 0.07958029955625534]
    """
    values = torch.tensor(NF4)
    flat = weight.float().reshape(-1)
    blocks = torch.nn.functional.pad(flat, (0, -flat.numel() % BLOCK)).view(-1, BLOCK)
    largest = blocks.abs().amax(1, keepdim=True)
    scaled = blocks / torch.where(largest > 0, largest, 1)
    codes = torch.bucketize(scaled, (values[1:] + values[:-1]) / 2)
    return (values[codes] * largest).reshape(-1)[: flat.numel()].view(weight.shape)


def merge_errors(patient: Patient, weights: Weights) -> list[MergeError]:
    """The error of merging each module that the folder has a weight for; one weight is in memory at a time.

    Raises: `InvalidInput` where the folder's weights are packed already, or none of the modules is in it.
    """
    if patient.file is None or patient.plan is None:
        return []
    found = [pair for pair in patient.pairs.values() if f"{pair.module}.weight" in weights and not pair.is_embedding]
    if not found:
        raise InvalidInput(
            "none of the adapter's modules has a weight in the base's folder",
            field="base",
            hint="name the folder that save_pretrained wrote, with the names of the base",
        )
    return [_error(patient, pair, weights) for pair in found]


def _error(patient: Patient, pair: Pair, weights: Weights) -> MergeError:
    assert patient.file is not None
    name = f"{pair.module}.weight"
    if weights.entry(name).dtype not in _FLOATS:
        raise InvalidInput(
            f"{name} is {weights.entry(name).dtype} in the base's folder: packed already",
            field="base",
            hint="name the folder of the model before it was packed",
        )
    original = weights.read(name).float()
    update = pair.scaling * patient.file.read(pair.lora_b).float() @ patient.file.read(pair.lora_a).float()
    if update.shape != original.shape:
        update = update.T
    if update.shape != original.shape:
        raise InvalidInput(
            f"{name} has the shape {list(original.shape)}, the adapter's update {list(update.shape)}", field="base"
        )
    trained_on = nf4(original)
    wanted = trained_on + update
    size = float(torch.linalg.vector_norm(update))

    def off(merged: torch.Tensor) -> float:
        return float(torch.linalg.vector_norm(merged - wanted)) / size if size else 0.0

    merged = (original + update).bfloat16().float()
    return MergeError(pair.module, off(nf4(wanted)), off(wanted.bfloat16().float()), off(merged))


def judge(errors: list[MergeError]) -> list[Finding]:
    """What they come to."""
    if not errors:
        return []
    ordered = sorted(errors, key=lambda one: one.packed_again, reverse=True)
    middle = statistics.median(one.packed_again for one in errors)
    sixteen = statistics.median(one.sixteen_bits for one in errors)
    original = statistics.median(one.into_the_original for one in errors)
    severity: Severity = "warning" if middle >= 1 else "advice"
    return [
        Finding(
            severity, "size", "packed_merge",
            f"merged into NF4 the error is {middle:.3g} times the update (median of {len(errors)} modules), into 16 bits of the "
            f"unpacked base {sixteen:.2g}, into the base before packing {original:.2g}",
            "4 bits round base and update together, in steps that are coarse beside an update; the base before packing is another "
            "one than the adapter was trained on",
            "unpack the base to 16 bits (model.dequantize()), merge, and save that; or serve the adapter beside the packed base",
            [one.module for one in ordered[:SHOWN_MODULES]],
            "huggingface/peft 0.21.2 tuners/lora/bnb.py, Linear4bit.merge",
        )
    ]  # fmt: skip
