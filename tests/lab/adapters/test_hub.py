"""The hub: adapters differ, return bit for bit, and never touch the base, whoever switches meanwhile."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from loralens.core.errors import InvalidInput, NotFound
from loralens.lab.adapters.adapter import Adapter
from loralens.lab.adapters.base_files import load_base
from loralens.lab.adapters.files import read_adapter
from loralens.lab.adapters.folder import stored_bytes
from loralens.lab.adapters.hub import WAYS, Hub
from loralens.lab.adapters.resize import resize_adapter
from loralens.lab.adapters.tasks import TASKS, held_out_facts, prompt_for
from loralens.lab.adapters.training import PRESETS
from loralens.lab.matmul.table import using

from .helpers import random_adapter

PROMPT = prompt_for(held_out_facts()[0].request)
NAMES = [task.name for task in TASKS]


def test_six_adapters_answer_differently_and_return_bit_for_bit(hub: Hub) -> None:
    seen = hub.verify(PROMPT)
    assert seen.adapters == seen.distinct_outputs == 6
    assert seen.returns_bit_for_bit and seen.base_unchanged


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_switching_gives_the_same_adapter(hub: Hub, way: str) -> None:
    before = hub.base_sha256()
    for name in NAMES:
        expected = hub.logits(PROMPT, name)
        assert hub.switch(name, way).way == way and hub.active == name and hub.way == way
        got = hub.logits(PROMPT)
        if way == "merge":  # one more rounding: W + BA is stored before it is used
            assert torch.allclose(got, expected, atol=1e-5) and not torch.equal(got, hub.logits(PROMPT, None))
        else:
            assert torch.equal(got, expected)
    hub.switch(None)
    assert torch.equal(hub.logits(PROMPT), hub.logits(PROMPT, None))
    assert hub.base_sha256() == before


def test_adapter_output_is_that_of_weights_with_the_update_added(hub: Hub, hub_folder: Path) -> None:
    recipe = PRESETS["test"]
    for name in NAMES[:2]:
        model = load_base(hub_folder)
        factors = read_adapter(hub_folder / "adapters" / name).factors
        for path, pair in factors.items():
            model.get_submodule(path).weight.data += recipe.alpha / recipe.rank * pair.lora_b @ pair.lora_a
        with torch.no_grad():
            expected = model(torch.tensor([hub.base.encode(PROMPT)]))[0, -1]
        assert torch.allclose(hub.logits(PROMPT, name), expected, atol=1e-5)


def test_mixed_batch_says_what_each_adapter_says_alone(hub: Hub) -> None:
    rows: list[str | None] = [NAMES[3], None, NAMES[0], NAMES[5], NAMES[3]]
    texts = [""] * len(rows)
    for token in hub.stream(PROMPT, rows, tokens=12):
        assert token.adapter == rows[token.row]
        texts[token.row] += token.text
    assert texts == [hub.generate(PROMPT, row, tokens=12) for row in rows]
    assert texts[0] == texts[4]
    # Texts of such a short training may agree by chance; logits do not.
    ids = torch.tensor([hub.base.encode(PROMPT)] * len(rows))
    with hub._pinned(rows) as (_, selection), using(selection), torch.no_grad():
        batch = hub.base.step(ids, None)[0]
    for index, row in enumerate(rows):
        assert torch.allclose(batch[index], hub.logits(PROMPT, row), atol=1e-5)
        others = [other for other in range(len(rows)) if rows[other] != row]
        assert all(not torch.allclose(batch[index], batch[other], atol=1e-4) for other in others)


def test_a_thousand_random_switches_under_concurrent_requests(hub: Hub) -> None:
    """Whoever switches in whichever way: each request gets its own adapter's bits, the base keeps its own."""
    before = hub.base_sha256()
    expected = {name: hub.logits(PROMPT, name) for name in [None, *NAMES]}
    texts = {name: hub.generate(PROMPT, name, tokens=6) for name in NAMES}
    stop = threading.Event()
    wrong: list[str] = []

    def request(seed: int) -> int:
        choice, count = random.Random(seed), 0
        while not stop.is_set():
            name = choice.choice([None, *NAMES])
            if not torch.equal(hub.logits(PROMPT, name), expected[name]):
                wrong.append(f"{name}")
            if name and hub.generate(PROMPT, name, tokens=6) != texts[name]:
                wrong.append(f"text of {name}")
            hub.logits(PROMPT)  # by whatever is active at this moment
            count += 1
        return count

    choice = random.Random(0)
    with ThreadPoolExecutor(4) as pool:
        requests = [pool.submit(request, seed) for seed in range(4)]
        for _ in range(1000):
            hub.switch(choice.choice([None, *NAMES]), choice.choice(WAYS))
        stop.set()
        answered = [future.result() for future in requests]
    assert wrong == [] and min(answered) > 0
    assert hub.base_sha256() == before
    assert all(torch.equal(hub.logits(PROMPT, name), expected[name]) for name in expected)


def test_a_running_stream_keeps_its_adapter(hub: Hub) -> None:
    expected = hub.generate(PROMPT, NAMES[0], tokens=10)
    stream = hub.stream(PROMPT, [NAMES[0]], tokens=10)
    text = next(stream).text
    hub.switch(NAMES[1])
    hub.unload(NAMES[0])
    for extra in range(6):  # would take the freed slot if it were not pinned
        hub.load(f"other-{extra}", hub.adapter(NAMES[2]))
    text += "".join(token.text for token in stream)
    assert text == expected
    with pytest.raises(NotFound, match="no adapter"):
        hub.generate(PROMPT, NAMES[0])


def test_unloading_frees_the_slot_and_falls_back_to_the_base(hub: Hub) -> None:
    base = hub.logits(PROMPT, None)
    hub.switch(NAMES[4])
    slot = next(loaded.slot for loaded in hub.adapters if loaded.name == NAMES[4])
    hub.unload(NAMES[4])
    assert hub.active is None and torch.equal(hub.logits(PROMPT), base)
    assert hub.load("again", hub.adapter(NAMES[0])).slot == slot


def test_mixed_ranks_live_together(hub: Hub) -> None:
    """A wider and a narrower adapter join without changing what the others answer."""
    expected = {name: hub.logits(PROMPT, name) for name in NAMES}
    wide = resize_adapter(hub.adapter(NAMES[1]), rank=11).adapter
    narrow = resize_adapter(hub.adapter(NAMES[1]), rank=1).adapter
    assert hub.load("wide", wide).rank == 11 and hub.load("narrow", narrow).rank == 1
    assert torch.allclose(hub.logits(PROMPT, "wide"), expected[NAMES[1]], atol=1e-4)
    assert not torch.allclose(hub.logits(PROMPT, "narrow"), expected[NAMES[1]], atol=1e-4)
    assert all(torch.allclose(hub.logits(PROMPT, name), expected[name], atol=1e-6) for name in NAMES)


def test_storage_figures_are_the_files_on_disk(hub: Hub, hub_folder: Path, tmp_path: Path) -> None:
    figures = hub.storage()
    assert figures.base_bytes == (hub_folder / "model.safetensors").stat().st_size
    for name, size in figures.adapter_bytes.items():
        files = list((hub_folder / "adapters" / name).iterdir())
        assert size == sum(path.stat().st_size for path in files) and len(files) == 2
        # …and an adapter that was never on disk is counted as it would be.
        hub.load("memory", hub.adapter(name))
        assert hub.storage().adapter_bytes["memory"] == hub.save(name, tmp_path / name) == stored_bytes(tmp_path / name)
    assert figures.shared_bytes == figures.base_bytes + sum(figures.adapter_bytes.values())
    assert figures.separate_bytes == 6 * figures.base_bytes


def test_adapters_that_do_not_fit_change_nothing(hub: Hub) -> None:
    before, names = hub.base_sha256(), [loaded.name for loaded in hub.adapters]
    odd: list[tuple[str, Adapter, str]] = [
        ("wide", random_adapter(), "another base"),
        ("../x", hub.adapter(NAMES[0]), "not a name"),
        ("", hub.adapter(NAMES[0]), "not a name"),
        ("x" * 65, hub.adapter(NAMES[0]), "not a name"),
    ]
    for name, adapter, expected in odd:
        with pytest.raises(InvalidInput) as caught:
            hub.load(name, adapter)
        assert expected in f"{caught.value.message} {caught.value.hint}"
    assert [loaded.name for loaded in hub.adapters] == names and hub.base_sha256() == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": " "},
        {"prompt": "x" * 5000},
        {"tokens": 0},
        {"tokens": 10**6},
        {"temperature": -1.0},
        {"adapters": []},
    ],
)
def test_requests_out_of_range_are_refused(hub: Hub, wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        list(hub.stream(**({"prompt": PROMPT, "adapters": [None]} | wrong)))  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        hub.switch("nobody")
    with pytest.raises(InvalidInput):
        hub.switch(None, "by magic")


def test_sampling_is_deterministic_for_a_seed(hub: Hub) -> None:
    def sample(seed: int) -> str:
        return "".join(t.text for t in hub.stream(PROMPT, [NAMES[0]], tokens=16, temperature=1.0, seed=seed))

    assert sample(3) == sample(3) != sample(4)


@pytest.mark.parametrize("temperature", [5e-324, 1e-266, 1e-40, 1e-6])
def test_a_temperature_of_next_to_nothing_is_none(hub: Hub, temperature: float) -> None:
    def said(warm: float) -> list[str]:
        return [t.text for t in hub.stream(PROMPT, [NAMES[0]], tokens=4, temperature=warm)]

    assert said(temperature) == said(0.0)
