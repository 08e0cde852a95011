"""Fetching one config.json from the Hub: a total deadline, a size limit, and no way to another host."""

from __future__ import annotations

import asyncio
from typing import Final

import httpx

from loralens.core.errors import GatedModel, HubUnavailable, UnknownModel
from loralens.huggingface.configs import MAX_BYTES
from loralens.huggingface.ids import PASTE, REVISION

MAX_REDIRECTS: Final = 4
"""The Hub redirects a renamed model, and files to a cache of its own, below the same host."""
_HEADERS: Final = {"accept": "application/json", "accept-encoding": "identity"}


async def download_config(hub: str, model: str, seconds: float) -> bytes:
    """The bytes of the model's config.json.

    Anonymous: no token is read or sent. `seconds` covers everything from the name's look-up to the last byte.

    Raises:
        UnknownModel: the Hub has no such model, or it has no config.json.
        GatedModel: its publisher lets only signed-in people read it.
        HubUnavailable: no connection, no answer in time, an answer that is too large, or one that leads elsewhere.
    """
    address = httpx.URL(f"{hub.rstrip('/')}/{model}/resolve/{REVISION}/config.json")
    try:
        async with asyncio.timeout(seconds), httpx.AsyncClient(timeout=seconds, follow_redirects=False) as client:
            return await _follow(client, address, model)
    except (TimeoutError, httpx.TimeoutException):
        raise HubUnavailable(f"{address.host} did not answer within {seconds:g} seconds", hint=PASTE) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise HubUnavailable(f"{address.host} cannot be reached: {_reason(error)}", hint=PASTE) from None


async def _follow(client: httpx.AsyncClient, address: httpx.URL, model: str) -> bytes:
    home = _origin(address)
    for _ in range(MAX_REDIRECTS + 1):
        async with client.stream("GET", address, headers=_HEADERS) as response:
            if not response.has_redirect_location:
                return await _read(response, model)
            address = address.join(response.headers["location"])
        if _origin(address) != home:
            raise HubUnavailable(f"the Hub redirected to another host, {address.host[:100]!r}", hint=PASTE)
    raise HubUnavailable("the Hub redirects in circles", hint=PASTE)


def _origin(address: httpx.URL) -> tuple[str, str, int | None]:
    return address.scheme, address.host, address.port


async def _read(response: httpx.Response, model: str) -> bytes:
    _check(response, model)
    read = bytearray()
    # Counted as it arrives, so that a missing or false length does not matter; a packed answer is not unpacked.
    async for chunk in response.aiter_raw(65_536):
        read += chunk
        if len(read) > MAX_BYTES:
            raise HubUnavailable(f"the config.json of {model} is larger than {MAX_BYTES} bytes", hint=PASTE)
    return bytes(read)


def _check(response: httpx.Response, model: str) -> None:
    """Raise what a status other than 200 means.

    Source: huggingface_hub, utils/_http.py (`hf_raise_for_status`): a model that does not exist answers 401 to
    strangers, with `X-Error-Code: RepoNotFound`; a gated one 401 or 403 with `GatedRepo`.
    """
    status, code = response.status_code, response.headers.get("x-error-code", "")
    if status == 200:
        return
    if code == "EntryNotFound":
        raise UnknownModel(
            f"{model} has no config.json on the Hub",
            field="model",
            hint="paste a config.json: without it the shapes of the model are unknown",
        )
    if status == 404 or code == "RepoNotFound":
        raise UnknownModel(
            f"the Hub has no model {model}, or it is private", field="model", hint=f"check the spelling, or {PASTE}"
        )
    if status in (401, 403):
        raise GatedModel(
            f"{model} is gated: its publisher lets only people with an accepted request read its files",
            field="model",
            hint=f"open its page with your own account and {PASTE}",
        )
    raise HubUnavailable(f"the Hub answered with status {status}", hint=f"try again later, or {PASTE}")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
