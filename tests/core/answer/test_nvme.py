"""ZeRO-Infinity: what is on the drive, what is left of it in host memory, and what DeepSpeed refuses.

The sums are DeepSpeed's own (0.19.6 runtime/zero/offload_config.py, runtime/swap_tensor), worked out here from a model's counts.
"""

import pytest

from loralens.core.answer.estimate import estimate
from loralens.core.errors import InvalidInput
from loralens.planner.fit import fit_answer

WORDS = {"gpus": 8, "strategy": "zero3", "gradient_checkpointing": True, "sequence_length": 2048,
         "sub_group_size": 100_000_000}  # fmt: skip
IN_MEMORY = 1_000_000_000  # max_in_cpu
GROUPED = 100_000_000  # sub_group_size


def pair(method="full", model="llama-3.1-8b", **words):
    return [estimate(model, method, **WORDS | words, offload_device=device) for device in ("cpu", "nvme")]


def step(found):
    return found.to_dict()["moments"][1]["host_bytes"]


def test_states_on_the_drive_leave_four_buffers_and_a_gradient_in_host_memory():
    memory, drive = pair(offload="optimizer")
    part = -(-memory.trainable_parameters // 8)
    found = drive.to_dict()["peak"]
    # masters, two moments and gradients in float32, but for gradients of less than 1 MiB: the norms
    norms = 65 * 4096
    assert found["nvme_bytes"] / 8 == pytest.approx(16 * part - 4 * norms / 8, abs=1024)  # and step counters
    at_least = (4 + 1) * 4 * min(part, GROUPED) + 2 * part  # buffers, one gradient buffer, 16-bit gradients
    assert found["host_bytes"] == pytest.approx(at_least, abs=8 * 1024)
    assert step(drive)[0] < step(memory)[0]
    assert step(drive)[1] < step(memory)[1]
    assert found["nvme_bytes"] / 8 + found["host_bytes"] >= memory.to_dict()["peak"]["host_bytes"]


def test_weights_on_the_drive_go_through_five_buffers_beside_trained_ones_in_host_memory():
    memory, drive = pair(offload="parameters")
    states = pair(offload="optimizer")[1]
    part = -(-memory.trainable_parameters // 8)
    small = sum(
        item.count * -(-item.parameter.bytes.at(*drive.point) // 8)
        for item in drive.plan.held
        if item.parameter.bytes.at(*drive.point) < 8 * 2**20
    )
    peaks = [found.to_dict()["peak"] for found in (memory, drive, states)]
    added = [peaks[1][word] - peaks[2][word] for word in ("nvme_bytes", "host_bytes")]
    assert added[0] / 8 == pytest.approx(2 * part - small, abs=300 * 1024)  # a file is a multiple of 1 KiB
    again = 2 * GROUPED  # a little more is trained than that: updated weights go back through a sub-group's buffer
    assert added[1] == pytest.approx(5 * 2 * 100_000_000 + 2 * IN_MEMORY + again + small, abs=8 * 1024)
    assert peaks[1]["nvme_bytes"] / 8 + peaks[1]["host_bytes"] >= peaks[0]["host_bytes"]
    assert step(drive)[0] < step(memory)[0]


def test_a_sub_group_as_large_as_all_saves_no_host_memory():
    memory, drive = pair(offload="optimizer", sub_group_size=None)
    assert step(drive)[0] > step(memory)[0]


def test_a_frozen_model_on_the_drive_leaves_its_buffers():
    words = {"offload": "parameters", "param_buffer_count": 6, "param_buffer_size": 140_000_000, "gpus": 8}
    memory, drive = pair("lora", "llama-3.1-70b", **words)
    buffers, adapter = 6 * 2 * 140_000_000, drive.trainable_parameters
    found = drive.to_dict()["peak"]
    assert buffers < found["host_bytes"] < buffers + 40 * adapter
    assert found["host_bytes"] < memory.to_dict()["peak"]["host_bytes"] / 4
    assert found["nvme_bytes"] > 0.99 * 2 * drive.total_parameters
    assert any("drive's reads and writes" in line for line in drive.assumptions())


def test_what_waits_for_a_drive_of_unknown_speed_has_no_time_and_no_cost():
    shared = {"gpus": 8, "strategy": "zero3", "offload": "optimizer", "offload_device": "nvme"}
    body = {"model": "llama-3.1-8b", "method": "full", "gpu": "h100-sxm-80gb", "tokens": 1_000_000}
    time = fit_answer(body | {"recipe": {"parallelism": shared}})["time"]
    assert time["withheld"]["key"] == "drive"
    assert time["gpu_hours"]["expected"] is None
    assert all(row["expected_usd"] is None for row in time["cost"])
    in_memory = fit_answer(body | {"recipe": {"parallelism": shared | {"offload_device": "cpu"}}})["time"]
    assert in_memory["withheld"] is None
    assert in_memory["gpu_hours"]["expected"] > 0


def test_on_the_gpu_a_buckets_gradients_are_float32_on_their_way():
    memory, drive = pair(offload="optimizer")
    on_the_way = 4 * 500_000_000 // 8
    assert 0 <= drive.allocated_bytes - memory.allocated_bytes <= on_the_way


def test_more_in_host_memory_and_more_buffers_are_said():
    plain = pair(offload="parameters")[1].to_dict()["peak"]["host_bytes"]
    less, more = (
        pair(offload="parameters", **words)[1].to_dict()["peak"]["host_bytes"]
        for words in ({"max_in_cpu": 0}, {"optimizer_buffer_count": 5})
    )
    assert plain - less == 2 * IN_MEMORY
    assert more - plain == pytest.approx(4 * GROUPED, abs=1024)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"strategy": "zero2", "offload": "optimizer"}, "only DeepSpeed's stage 3"),
        ({"strategy": "fsdp2", "offload": "parameters"}, "only DeepSpeed's stage 3"),
        ({"offload": "none"}, "nothing of it waits on a drive"),
        ({"offload": "activations"}, "nothing of it waits on a drive"),
        ({"offload": "parameters", "gpus": 1}, "param_buffer_size|a buffer 100,000,000"),
    ],
)
def test_what_no_drive_is_used_for_is_refused(words, says):
    with pytest.raises(InvalidInput, match=says) as refused:
        pair("lora", **words)[1].to_dict()
    assert refused.value.hint
