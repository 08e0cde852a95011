import pytest
import torch

from loralens.core.errors import DeviceUnavailable
from loralens.lab.device import Device, clocks, is_out_of_memory


def test_one_thread_is_timed_by_its_own_clock():
    device = Device("cpu", 1)
    assert device.clock == "CPU time of one thread"
    assert torch.get_num_threads() == 1
    sample = device.time(lambda index: sum(range(1000)), 0, 10)
    assert 0 < sample.seconds <= sample.wall_seconds * 1.5


def test_the_machine_is_described_in_json():
    import json

    about = Device("cpu").describe()
    assert json.loads(json.dumps(about)) == about
    assert about["cache_bytes"] >= 2**18 and Device("cpu").free_bytes() > 2**28


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["cuda:0", "mps"])
def test_a_missing_device_is_said(name):
    with pytest.raises(DeviceUnavailable):
        Device(name)


def test_without_a_driver_there_are_no_clocks():
    if not torch.cuda.is_available():
        assert clocks(0) is None


def test_running_out_of_memory_is_recognised_for_what_it_is():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError()) and not is_out_of_memory(RuntimeError("shapes do not fit"))
