"""A client of the service, ``hashlgn serve``: the same questions and the same tables as the library's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import numpy as np
import requests

from hashlgn.errors import ArgumentError, ServiceError, shown
from hashlgn.inference.requests import listed
from hashlgn.inference.tables import Table

__all__ = ["Client"]

_BATCH = 256  # users in one request
_TYPES: dict[str, Any] = {"score": np.float32, "probability": np.float32, "rank": np.int64}


class Client:
    """A connection to a service. It may be used from one thread at a time, and as a context manager.

    Args:
        url: where the service is, such as ``http://127.0.0.1:8765``.
        key: a key with the scope that the calls need; None where the service asks for none.
        timeout: seconds that an answer may take. Default: 10.

    Raises:
        ArgumentError: ``url`` is no address of HTTP, or ``timeout`` is not positive.
    """

    def __init__(self, url: str, key: str | None = None, *, timeout: float = 10.0) -> None:
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            raise ArgumentError(f"url must begin with http:// or https:// (got {shown(url)})")
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
            raise ArgumentError(f"timeout must be a positive number of seconds (got {shown(timeout)})")
        self._url, self._timeout, self._session = url.rstrip("/"), timeout, requests.Session()
        if key is not None:
            self._session.headers["Authorization"] = f"Bearer {key}"

    def recommend(
        self,
        users: Any = None,
        k: int | None = None,
        *,
        threshold: float | None = None,
        filter_seen: bool = True,
        allow: Iterable[Any] | None = None,
        deny: Iterable[Any] | None = None,
        history: Any = None,
        calibrated: bool = False,
        filters: Mapping[str, Iterable[Any]] | None = None,
    ) -> Table:
        """Recommendations to users, or to somebody by their history; see ``HashLGN.recommend``.

        Args:
            users: ids of users, or one id.
            k: number of items for each. Default: 10, unless a threshold is given.
            threshold: instead of ``k``: every item whose score is greater than this.
            filter_seen: whether items of the history are left out. Default: True.
            allow: ids of the only items that may be answered.
            deny: ids of items that must not be answered.
            history: instead of ``users``: item ids, or a mapping from names to such lists, or to mappings from items to
                strengths.
            calibrated: add a column ``probability``; ``threshold`` is a probability then. Default: False.
            filters: values that attributes of an item must have: ``{"category": ["a", "b"], "available": [True]}``.

        Returns:
            Columns user, item, score, rank (from 1) and source, then probability, and title where the service knows
            titles. A history has no column user.

        Raises:
            ArgumentError: both or neither of ``users`` and ``history`` are given.
            ServiceError: the service is away, or refuses the request.
        """
        if (users is None) == (history is None):
            raise ArgumentError("one of users and history must be given (got both or neither)")
        asked: dict[str, Any] = {"k": k, "threshold": threshold, "filter_seen": filter_seen, "calibrated": calibrated}
        asked |= {"allow": _plain(allow), "deny": _plain(deny)}
        asked["filters"] = None if filters is None else {name: _plain(values) for name, values in filters.items()}
        asked = {name: value for name, value in asked.items() if value is not None}
        if history is not None and not isinstance(history, Mapping):
            answer = self._call("POST", "/v1/sessions", json=asked | {"history": _history(history)})
            return _table([answer], "item", calibrated)
        if history is None:
            names = _plain(listed("users", users)) or []
            bodies = [asked | {"user": user} for user in names]
        else:
            names = _plain(list(history)) or []
            bodies = [asked | {"history": _history(items)} for items in history.values()]
        results: list[dict[str, Any]] = []
        for batch in _batches(bodies, _BATCH):
            results += self._call("POST", "/v1/recommendations", json={"requests": batch})["results"]
        for result in results:
            if "error" in result:
                raise _error(int(result["status"]), result["error"])
        named = [result | {"user": name} for result, name in zip(results, names, strict=True)]
        return _table(named, "user", calibrated)

    def similar_items(self, item: Any, k: int = 10) -> Table:
        """The items most similar to one item: columns item, score and rank, and title where the service has them.

        Raises:
            ServiceError: the service is away, or does not know the item.
        """
        return _table([self._call("GET", f"/v1/items/{_path(item)}/similar", params={"k": k})], "item")

    def search_titles(self, title: str, k: int = 20) -> list[dict[str, Any]]:
        """Items by the beginnings of words of their titles: dicts of item, title and genres.

        Raises:
            ServiceError: the service is away.
        """
        found: list[dict[str, Any]] = self._call("GET", "/v1/items", params={"title": title, "k": k})["items"]
        return found

    def history(self, user: Any) -> list[dict[str, Any]]:
        """The history of a user, as the service knows it: dicts of item, event_id, type, weight and time.

        Raises:
            ServiceError: the service is away, or does not know the user.
        """
        items: list[dict[str, Any]] = self._call("GET", f"/v1/users/{_path(user)}/history")["items"]
        return items

    def events(self, events: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Tell the service what happened. What is accepted is on disk when this returns, and in the next answer.

        Args:
            events: one, or a list, of ``{"user": …, "item": …}`` with, as far as they are known, event_id, type, weight
                and time. The same event_id twice counts once.

        Returns:
            How many were ``accepted`` and how many were ``duplicates``, and what was ``rejected`` and why.

        Raises:
            ServiceError: the service is away, or its disk is full.
        """
        every = [events] if isinstance(events, Mapping) else list(events)
        for event in every:
            if not isinstance(event, Mapping):
                raise ArgumentError(f"events must be mappings such as {{'user': 42, 'item': 318}} (got {shown(event)})")
        body = [{name: _item(value) for name, value in event.items()} for event in every]
        outcome: dict[str, Any] = self._call("POST", "/v1/events", json=body)
        return outcome

    def delete_user(self, user: Any) -> None:
        """Forget everything about a user, for good.

        Raises:
            ServiceError: the service is away, or refuses.
        """
        self._call("DELETE", f"/v1/users/{_path(user)}")

    def models(self) -> dict[str, Any]:
        """The models that the service has, and which of them answers.

        Raises:
            ServiceError: the service is away.
        """
        models: dict[str, Any] = self._call("GET", "/v1/models")
        return models

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: str, path: str, **options: Any) -> Any:
        try:
            answer = self._session.request(method, self._url + path, timeout=self._timeout, **options)
            body = answer.json() if answer.content else {}
        except requests.exceptions.JSONDecodeError as error:
            raise ServiceError(f"{self._url}: the answer is no JSON (is this a service of HashLGN?)") from error
        except requests.exceptions.InvalidJSONError as error:
            raise ArgumentError(f"values must be such that JSON has them ({error})") from error
        except requests.exceptions.Timeout as error:
            raise ServiceError(f"{self._url}: no answer within {self._timeout:g} s") from error
        except requests.exceptions.ConnectionError as error:
            raise ServiceError(f"{self._url}: the service cannot be reached") from error
        except requests.exceptions.RequestException as error:
            raise ServiceError(f"{self._url}: {error}") from error
        if not answer.ok:
            raise _error(answer.status_code, body.get("error", {}) if isinstance(body, dict) else {})
        return body


def _error(status: int, error: Mapping[str, Any]) -> ServiceError:
    field = f"{error['field']}: " if error.get("field") else ""
    return ServiceError(f"{status} {error.get('code', 'error')}: {field}{error.get('message', '')}".rstrip(": "))


def _path(value: Any) -> str:
    """An id as a part of a path."""
    return quote(str(value), safe="")


def _plain(values: Iterable[Any] | None) -> list[Any] | None:
    """Values as JSON knows them."""
    if values is None:
        return None
    return [_item(value) for value in values]


def _item(value: Any) -> Any:
    """A value as JSON knows it."""
    return value.item() if isinstance(value, np.generic) else value


def _history(history: Any) -> list[Any]:
    if isinstance(history, Mapping):
        pairs = zip(_plain(history) or [], history.values(), strict=True)
        return [{"item": item, "weight": float(weight)} for item, weight in pairs]
    return _plain(listed("history", history)) or []


def _batches(values: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _table(results: list[dict[str, Any]], name: str, calibrated: bool = False) -> Table:
    """Results in the columns of the library."""
    found = [(result, rank, row) for result in results for rank, row in enumerate(result["items"], 1)]
    columns: dict[str, list[Any]] = {} if name == "item" else {"user": [result["user"] for result, _, _ in found]}
    columns["item"] = [row["item"] for _, _, row in found]
    columns["score"] = [row["score"] for _, _, row in found]
    columns["rank"] = [rank for _, rank, _ in found]
    if all("source" in result for result in results):
        columns["source"] = [result["source"] for result, _, _ in found]
    if calibrated:
        columns["probability"] = [row.get("probability", np.nan) for _, _, row in found]
    if any("title" in row for _, _, row in found):
        columns["title"] = [row.get("title") for _, _, row in found]
    return Table({name: _column(name, values) for name, values in columns.items()})


def _column(name: str, values: list[Any]) -> np.ndarray[Any, Any]:
    if name in _TYPES:
        return np.array(values, _TYPES[name])
    if values and all(isinstance(value, int) for value in values):
        return np.array(values, np.int64)
    return np.array([*values, None], np.object_)[:-1]
