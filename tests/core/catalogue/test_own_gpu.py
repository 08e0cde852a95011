"""A GPU of one's own: what is given counts, what is not given stays unknown, and nothing odd is taken."""

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralens.core import catalogue
from loralens.core.answer.answers import memory_answer
from loralens.core.answer.serving import serving_answer
from loralens.core.catalogue import own_gpu
from loralens.core.errors import InvalidInput
from loralens.planner.fit import fit_answer
from loralens.planner.sweep import sweep_answer

TITLE = st.from_regex(r"[\w.()-][\w .()-]{0,40}[\w.()-]", fullmatch=True)


@given(
    thousandths=st.integers(500, 4_096_000),
    bandwidth=st.none() | st.integers(1, 100_000),
    rate=st.none() | st.integers(10, 100_000_000),
    title=st.none() | TITLE,
    rotate=st.integers(0, 3),
)
def test_the_description_says_every_number_and_its_id_says_it_again(thousandths, bandwidth, rate, title, rotate):
    parts = [f"{thousandths // 1000}.{thousandths % 1000:03} gib"]
    parts += [f"{bandwidth}GB/s"] if bandwidth else []
    parts += [f"{rate // 1000}.{rate % 1000:03}TFLOP/s"] if rate else []
    parts += [f"name={title}"] if title else []
    device = own_gpu("custom:" + ",".join(parts[rotate:] + parts[:rotate]))
    assert abs(device.memory_bytes - Fraction(thousandths, 1000) * 2**30) <= Fraction(1, 2)
    assert device.memory_bandwidth_bytes_per_second == (bandwidth * 10**9 if bandwidth else None)
    assert device.dense_flops_per_second["bfloat16"] == (rate * 10**9 if rate else None)
    assert title is None or device.name == title
    assert own_gpu(device.id) == device
    json.dumps(device.to_dict())


def test_the_drivers_mebibytes_are_exact():
    assert own_gpu("custom:24564MiB").memory_bytes == 24_564 * 2**20
    assert own_gpu(" Custom:24.0GiB").id == "custom:24GiB"


@pytest.mark.parametrize("text", ["24GB", "24 gb", "24GiB", "custom:24GB", "custom: 24 gb"])
def test_gigabytes_on_a_box_are_gibibytes_and_a_size_alone_is_a_card(text):
    device = catalogue.gpu(text)
    assert (device.id, device.memory_bytes) == ("custom:24GiB", 24 * 2**30)
    assert catalogue.gpu(device.id) == device


@pytest.mark.parametrize(
    "text",
    ["", "24", "24 TB", "24GB,24GiB", "0GiB", "-1GiB", "0.4GiB", "5000GiB", "1e3GiB", "24GiB,24GiB", "24GiB,24000MiB", "24GiB,0GB/s",
     "24GiB,name=", "24GiB,name=a,name=b", "24GiB,name=<b>", "24GiB,name=" + "x" * 61, "1008GB/s", "24GiB,colour=red",
     "٢٤GiB", "9" * 500 + "GiB", "24GiB,1TB/s", "24GiB,\x00", "nanGiB"],
)  # fmt: skip
def test_what_is_no_description_is_refused_with_the_field_and_an_example(text):
    with pytest.raises(InvalidInput) as caught:
        own_gpu(f"custom:{text}")
    assert caught.value.field == "gpu"
    assert "custom:24GiB" in (caught.value.hint or "")
    assert len(caught.value.message) < 250


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text):
    try:
        device = own_gpu(f"custom:{text}")
    except InvalidInput:
        return
    assert 2**29 <= device.memory_bytes <= 2**42


def test_it_stands_wherever_a_gpu_does():
    same = {"rtx-4090": catalogue.gpu("rtx-4090"), "own": catalogue.gpu("custom:24564MiB,name=Lab card")}
    assert same["own"].memory_bytes == same["rtx-4090"].memory_bytes
    body = {"model": "7B", "methods": ["lora"], "recipe": {"gradient_checkpointing": False}}
    own, known = ({**body, "gpu": device.id} for device in (same["own"], same["rtx-4090"]))
    fits = [memory_answer(asked)["estimates"][0]["fits"][0] for asked in (own, known)]
    assert fits[0]["gpu"] == "custom:24564MiB,name=Lab card"
    assert [fit["verdict"] for fit in fits] == ["tight", "tight"]
    assert fits[0]["headroom_bytes"] == fits[1]["headroom_bytes"]
    assert serving_answer({"model": "7B", "gpu": own["gpu"]})["gpus"][0]["name"] == "Lab card"
    grid = {"model": "7B", "method": "lora", "recipe": {"gradient_checkpointing": False}, "sweep": {"rank": [8, 16]}}
    sweeps = [sweep_answer({**grid, "gpu": asked["gpu"]})["sweeps"] for asked in (own, known)]
    assert sweeps[0] == sweeps[1] and sweeps[0][0]["fits"] == [False, False]


def test_advice_for_it_names_changes_and_a_card_of_any_vendor():
    answer = fit_answer({"model": "7B", "method": "full", "gpu": "custom:16GiB"})
    assert answer["verdict"] == "does_not_fit"
    assert answer["gpu"]["memory_basis"] == "given in the request"
    assert answer["advice"]["changes"]
    chosen = catalogue.gpu(answer["advice"]["smallest_gpu"]["id"])
    assert chosen.memory_bytes >= answer["needed_bytes"]
    smaller = [row for row in catalogue.gpus() if row.memory_basis.startswith("driver")]
    assert not [row for row in smaller if answer["needed_bytes"] <= row.memory_bytes < chosen.memory_bytes]


def test_time_needs_a_rate_and_invents_none():
    asked = {"model": "7B", "method": "lora", "tokens": 10**7}
    unknown = fit_answer({**asked, "gpu": "custom:24GiB"})["time"]
    assert unknown["gpu_hours"] == dict.fromkeys(("least", "expected", "low", "high"))
    assert any("not known" in line for line in unknown["assumptions"])
    known = fit_answer({**asked, "gpu": "custom:24GiB,165TFLOP/s"})["time"]
    assert known["gpu_hours"]["least"] == pytest.approx(known["flops"] / 165e12 / 3600)
    assert known["cost"] == []
