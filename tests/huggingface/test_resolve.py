"""Looking a model up, against a real HTTP server in the Hub's place."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import running
from huggingface.stand_in import CONFIG, PARAMETERS, StandIn

from loralens.core.errors import GatedModel, HubUnavailable, LoraLensError, UnknownModel, UnsupportedArchitecture
from loralens.huggingface.resolve import Resolver
from loralens.huggingface.store import MOST, Store
from loralens.settings import Settings

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def hub() -> Iterator[StandIn]:
    with StandIn() as server:
        yield server


@pytest.fixture
def ask(hub: StandIn, tmp_path: Path) -> Ask:
    hub.paths.clear()

    def resolve(text: Any, from_hub: bool = True, *, url: str | None = hub.url, seconds: float = 20) -> dict[str, Any]:
        resolver = Resolver(tmp_path / "state", tmp_path / "models", url, seconds)
        return asyncio.run(resolver.resolve(text, from_hub))

    return resolve


def test_a_name_is_fetched_once_and_then_remembered(ask: Ask, hub: StandIn) -> None:
    found = ask("https://huggingface.co/some-owner/small/tree/main")
    assert hub.paths == ["/some-owner/small/resolve/main/config.json"]
    assert (found["source"], found["id"]) == ("hub", "some-owner/small")
    assert found["model"] == {
        "id": "custom", "name": "some-owner/small", "family": "llama", "parameters": PARAMETERS, "left_out": [],
    }  # fmt: skip
    assert found["config"] == {**CONFIG, "_name_or_path": "some-owner/small"}
    again = ask("some-owner/small", from_hub=False)
    assert again == {**found, "source": "cache"}
    assert ask("some-owner/small")["source"] == "cache"
    assert len(hub.paths) == 1


def test_an_old_copy_is_fetched_anew_only_when_the_hub_is_asked(ask: Ask, hub: StandIn, tmp_path: Path) -> None:
    ask("some-owner/small")
    (file,) = (tmp_path / "state" / "huggingface").glob("*.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "fetched_at": "2020-01-01T00:00:00+00:00"}))
    assert ask("some-owner/small", from_hub=False)["fetched_at"].startswith("2020")
    assert ask("some-owner/small")["source"] == "hub"
    file.write_text("{ broken")
    with pytest.raises(UnknownModel):
        ask("some-owner/small", from_hub=False)


def test_nothing_leaves_the_machine_unless_asked(ask: Ask, hub: StandIn) -> None:
    with pytest.raises(UnknownModel, match="neither in the catalogue nor") as caught:
        ask("some-owner/small", from_hub=False)
    assert "--from-hub" in (caught.value.hint or "")
    with pytest.raises(HubUnavailable, match="LORALENS_HUB=off"):
        ask("some-owner/small", url=None)
    assert hub.paths == []


def test_the_catalogue_and_local_folders_come_first(ask: Ask, hub: StandIn, tmp_path: Path) -> None:
    assert ask("https://huggingface.co/Qwen/Qwen2.5-7B")["id"] == "qwen2.5-7b"
    assert ask("7B")["source"] == "catalogue"
    for folder in ("Small", "other--small"):
        (tmp_path / "models" / folder).mkdir(parents=True)
        (tmp_path / "models" / folder / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": 500}))
    assert (ask("small")["source"], ask("small")["id"]) == ("folder", "Small")
    assert ask("some-owner/small")["id"] == "Small"
    assert ask("other/small")["id"] == "other--small"
    assert ask("other/small")["model"]["parameters"] == PARAMETERS - 2 * 500 * 64
    assert hub.paths == []


def test_a_misspelt_name_gets_names_that_look_like_it(ask: Ask, hub: StandIn) -> None:
    with pytest.raises(UnknownModel) as caught:
        ask("qwen2.5-7x")
    assert "qwen2.5-7b" in (caught.value.hint or "")
    assert hub.paths == []


def test_a_link_out_of_the_folder_is_not_followed(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "models" / "linked").mkdir(parents=True)
    (tmp_path / "secret.json").write_text(json.dumps(CONFIG))
    (tmp_path / "models" / "linked" / "config.json").symlink_to(tmp_path / "secret.json")
    (tmp_path / "models" / "away").symlink_to(tmp_path)
    for name in ("owner/linked", "owner/away"):
        with pytest.raises(UnknownModel):
            ask(name, from_hub=False)


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("nothing-here", UnknownModel, "no model owner/nothing-here"),
        ("stranger", UnknownModel, "or it is private"),
        ("gated", GatedModel, "gated"),
        ("forbidden", GatedModel, "accepted request"),
        ("broken", HubUnavailable, "status 500"),
        ("html", HubUnavailable, "is not JSON"),
        ("list", HubUnavailable, "not contain a JSON object"),
        ("deep", HubUnavailable, "not JSON|nested deeper"),
        ("packed", HubUnavailable, "is not JSON"),
        ("huge", HubUnavailable, "larger than 1048576 bytes"),
        ("elsewhere", HubUnavailable, "another host"),
        ("nowhere", HubUnavailable, "another host"),
        ("circle", HubUnavailable, "in circles"),
        ("odd", UnsupportedArchitecture, "no-such-family"),
    ],
)
def test_what_can_go_wrong_is_said_with_the_way_out(
    ask: Ask, tmp_path: Path, name: str, error: type[LoraLensError], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        ask(f"owner/{name}")
    assert caught.value.hint
    if error in (HubUnavailable, GatedModel):
        assert "paste or drop the model's config.json" in caught.value.hint
    assert not list(tmp_path.glob("state/huggingface/*"))


def test_a_model_without_a_config_is_not_one_that_does_not_exist(ask: Ask) -> None:
    with pytest.raises(UnknownModel, match=r"has no config\.json"):
        ask("empty/thing")


@pytest.mark.parametrize("name", ["slow", "dripping"])
def test_the_deadline_is_for_the_whole_look_up(ask: Ask, name: str) -> None:
    with pytest.raises(HubUnavailable, match=r"did not answer within 0\.4 seconds"):
        ask(f"owner/{name}", seconds=0.4)


def test_no_connection_is_said_in_words(ask: Ask) -> None:
    with pytest.raises(HubUnavailable, match="cannot be reached"):
        ask("owner/small", url="http://127.0.0.1:9")


def test_a_renamed_model_is_followed_on_the_same_host(ask: Ask, hub: StandIn) -> None:
    assert ask("owner/renamed")["model"]["parameters"] == PARAMETERS
    assert hub.paths[-1] == "/new-owner/small/resolve/main/config.json"


def test_the_store_forgets_the_oldest(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for index in range(MOST + 5):
        store.put(f"owner/m{index}", CONFIG)
    assert len(list(tmp_path.iterdir())) == MOST
    assert store.get(f"owner/m{MOST + 4}") is not None


def test_the_endpoint_says_the_same(hub: StandIn, tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, hub_url=hub.url, web_dir=tmp_path)
    with running(settings) as address, httpx.Client(base_url=address, timeout=30) as client:

        def post(**body: Any) -> httpx.Response:
            return client.post("/api/models/resolve", json=body)

        assert post(model="owner/small").status_code == 404
        found = post(model=f"{hub.url}/owner/small", from_hub=True).json()
        assert found["model"]["parameters"] == PARAMETERS
        counted = client.post("/api/parameters", json={"config": found["config"], "method": "full"}).json()
        assert counted["model"]["name"] == "owner/small"
        assert counted["parameters"]["total"] == PARAMETERS
        for body, status, code in (
            ({"model": "owner/gated", "from_hub": True}, 403, "gated_model"),
            ({"model": "owner/broken", "from_hub": True}, 503, "hub_unavailable"),
            ({"model": "owner/../x", "from_hub": True}, 422, "invalid_input"),
            ({"model": 7}, 422, "invalid_input"),
            ({"from_hub": True}, 422, "invalid_input"),
            ({"model": "a/b", "from_hub": "yes"}, 422, "invalid_input"),
            ({"model": "a/b", "host": "x"}, 422, "invalid_input"),
        ):
            refused = client.post("/api/models/resolve", json=body)
            assert (refused.status_code, refused.json()["code"]) == (status, code), body


def test_the_command_line_looks_up_only_with_its_flag(
    hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    from loralens.cli.main import run

    monkeypatch.setenv("LORALENS_HUB_URL", hub.url)
    monkeypatch.setenv("LORALENS_STATE_DIR", str(tmp_path))
    hub.paths.clear()
    assert run(["memory", "owner/small", "--json"]) == 2
    assert b"--from-hub" in capfdbinary.readouterr().err
    assert hub.paths == []
    assert run(["memory", "owner/small", "--from-hub", "-m", "lora", "--rank", "4", "--json"]) == 0
    answer = json.loads(capfdbinary.readouterr().out)
    assert answer["model"]["parameters"] == PARAMETERS
    assert run(["memory", "7B", "--from-hub", "-m", "lora", "--json"]) == 0
    assert json.loads(capfdbinary.readouterr().out)["model"]["id"] == "llama-2-7b"
    assert run(["memory", "owner/gated", "--from-hub"]) == 1
    monkeypatch.setenv("LORALENS_HUB", "off")
    assert run(["memory", "owner/other", "--from-hub"]) == 3
    assert b"LORALENS_HUB=off" in capfdbinary.readouterr().err
