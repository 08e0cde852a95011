from __future__ import annotations

import httpx
from conftest import running

from loralens.settings import Settings
from loralens.watched import FOLDER


def test_trainings_of_this_machine(client):
    assert client.get("/api/watched").json() == {"runs": [], "unreadable": 0, "shown": True}
    assert client.get("/api/watched?folder=/etc").json()["runs"] == []
    assert client.post("/api/watched").status_code == 405


def test_where_several_people_use_it_none_is_shown(tmp_path):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / f"{1:016x}.json").write_text("{}")
    with running(Settings(state_dir=tmp_path, shared="on")) as address:
        answer = httpx.get(f"{address}/api/watched").json()
    assert answer == {"runs": [], "unreadable": 0, "shown": False}
