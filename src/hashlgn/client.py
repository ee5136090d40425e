"""A client of the service, ``hashlgn serve``: the same questions and the same tables as the library's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import numpy as np
import requests

from hashlgn.errors import ArgumentError, ServiceError, shown
from hashlgn.inference.requests import listed, skips
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
        allow: Any = None,
        deny: Any = None,
        on_unknown: str = "popular",
        history: Any = None,
        on_empty: str = "popular",
        calibrated: bool = False,
        titles: bool = True,
        explain: bool = False,
        filters: Mapping[str, Any] | None = None,
        model: str | None = None,
    ) -> Table:
        """Recommendations to users, or to somebody by their history; see ``HashLGN.recommend``.

        Args:
            users: ids of users, or one id.
            k: number of items for each. Default: 10, unless a threshold is given.
            threshold: instead of ``k``: every item whose score is greater than this.
            filter_seen: whether items of the history are left out. Default: True.
            allow: ids of the only items that may be answered: one list for all, a list with one list per row asked, or
                a mapping from each user or name to a list.
            deny: ids of items that must not be answered, in the same forms; a mapping may leave rows out.
            on_unknown: what is done about users of whom nothing is known: ``popular`` (default) answers with what most
                users have, ``skip`` leaves them out, ``raise`` refuses. Unknown items in lists are refused by
                ``raise``, and else left out.
            history: instead of ``users``: item ids, or a mapping from names to such lists, or to mappings from items to
                strengths.
            on_empty: the same about a history without a known item. Default: ``popular``.
            calibrated: add a column ``probability``; ``threshold`` is a probability then. Default: False.
            titles: add a column ``title`` where the service knows titles: None for an item without one. Default:
                True.
            explain: add a column ``why``: for each answer up to five dicts of an item of the history, its title, and
                its share of the score. Default: False.
            filters: values that attributes of an item must have: ``{"category": ["a", "b"], "available": True}``.
            model: version of the model that answers. Default: the active one, or that of the user's arm.

        Returns:
            Columns user, item, score, rank (from 1) and source, then probability, title and why. A plain list as
            ``history`` has no name, and the table no column user.

        Raises:
            ArgumentError: both or neither of ``users`` and ``history`` are given, or lists are too few or too many.
            ServiceError: the service is away, or refuses the request.
        """
        if (users is None) == (history is None):
            raise ArgumentError("one of users and history must be given (got both or neither)")
        asked: dict[str, Any] = {"k": k, "threshold": threshold, "filter_seen": filter_seen, "calibrated": calibrated}
        asked |= {"explain": explain, "model": model, "on_unknown": on_unknown, "on_empty": on_empty}
        asked["filters"] = None if filters is None else {name: _plain(values) for name, values in filters.items()}
        names: list[Any] = [None]
        if history is None:
            names = _plain(listed("users", users))
            own: list[dict[str, Any]] = [{"user": name} for name in names]
        elif isinstance(history, Mapping):
            names = _plain(history)
            own = [{"history": _history(items)} for items in history.values()]
        else:
            own = [{"history": _history(history)}]
        lists = _per_row("allow", allow, names), _per_row("deny", deny, names)
        bodies = [
            {name: value for name, value in {**asked, **one, "allow": only, "deny": but}.items() if value is not None}
            for one, only, but in zip(own, *lists, strict=True)
        ]
        results: list[dict[str, Any]] = []
        for start in range(0, len(bodies), _BATCH):
            batch = {"requests": bodies[start : start + _BATCH]}
            results += self._call("POST", "/v1/recommendations", json=batch)["results"]
        for result in results:
            if "error" in result:
                raise _error(int(result["status"]), result["error"])
        columns = {} if names == [None] else {"user": names}
        kept = [*(["probability"] * calibrated), *(["title"] * titles), *(["why"] * explain)]
        return _table(results, columns | {"source": [result["source"] for result in results]}, kept)

    def similar_items(
        self, items: Any, k: int = 10, *, on_unknown: str = "raise", titles: bool = True, model: str | None = None
    ) -> Table:
        """The items most similar to each item, by cosine; see ``HashLGN.similar_items``.

        Args:
            items: ids of items, or one id.
            k: number of neighbours per item. Default: 10.
            on_unknown: what is done about unknown items: ``raise``, the default, or ``skip`` them.
            titles: add a column ``title``, that of the similar item, where the service knows titles. Default: True.
            model: version of the model that answers. Default: the active one.

        Returns:
            Columns item, similar, score (cosine) and rank (from 1), and title.

        Raises:
            ServiceError: the service is away, or does not know an item.
        """
        skip, params = skips(on_unknown), {"k": k} if model is None else {"k": k, "model": model}
        asked, results = _plain(listed("items", items)), []
        for item in asked:
            try:
                results.append(self._call("GET", f"/v1/items/{_path(item)}/similar", params=params))
            except ServiceError as error:
                if not skip or "unknown_item" not in str(error):
                    raise
        return _table(results, {"item": [found["item"] for found in results]}, ["title"] * titles, "similar")

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

    def delete_user(self, user: Any) -> int:
        """Forget everything about a user, for good; how many entries the history had.

        Raises:
            ServiceError: the service is away, or refuses.
        """
        return self._deleted(f"users/{_path(user)}")

    def delete_item(self, user: Any, item: Any) -> int:
        """Forget an item of a user's history, for good; how many entries it had.

        Raises:
            ServiceError: the service is away, or refuses.
        """
        return self._deleted(f"users/{_path(user)}/history/{_path(item)}")

    def delete_event(self, event_id: str) -> int:
        """Forget an event, for good; how many there were.

        Raises:
            ServiceError: the service is away, or refuses.
        """
        return self._deleted(f"events/{_path(event_id)}")

    def put_item(self, item: Any, attributes: Mapping[str, Any]) -> None:
        """Say what an item's attributes are from now on; ``filters`` ask for them.

        Args:
            item: id of the item.
            attributes: values by name: a text, a number, a truth value, or a list of them.

        Raises:
            ArgumentError: the attributes are no mapping.
            ServiceError: the service is away, or does not know the item.
        """
        if not isinstance(attributes, Mapping):
            raise ArgumentError(f"attributes must be a mapping from names to values (got {shown(attributes)})")
        several = list, tuple, set, np.ndarray
        plain = {name: _plain(one) if isinstance(one, several) else _item(one) for name, one in attributes.items()}
        self._call("PUT", f"/v1/items/{_path(item)}", json=plain)

    def models(self) -> dict[str, Any]:
        """The models that the service has, and which of them answers.

        Raises:
            ServiceError: the service is away.
        """
        models: dict[str, Any] = self._call("GET", "/v1/models")
        return models

    def activate(self, version: str) -> str:
        """Let a model answer from now on; its version.

        Raises:
            ServiceError: the service is away, or refuses the model: the one before goes on.
        """
        active: str = self._call("POST", f"/v1/models/{_path(version)}/activate")["active"]
        return active

    def rollback(self) -> str:
        """Let the model before answer again; its version.

        Raises:
            ServiceError: the service is away, or there was none before.
        """
        active: str = self._call("POST", "/v1/models/rollback")["active"]
        return active

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _deleted(self, path: str) -> int:
        deleted: int = self._call("DELETE", f"/v1/{path}")["deleted"]
        return deleted

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
    if str(value) in (".", ".."):  # which every client of HTTP takes for a step in the path
        raise ArgumentError(f"ids in a path must not be '.' or '..' (got {shown(value)})")
    return quote(str(value), safe="")


def _plain(values: Any) -> list[Any]:
    """Values as JSON knows them; one value is a list of one."""
    one = isinstance(values, str) or not isinstance(values, Iterable)
    return [_item(value) for value in ([values] if one else values)]


def _item(value: Any) -> Any:
    """A value as JSON knows it."""
    return value.item() if isinstance(value, np.generic) else value


def _history(history: Any) -> list[Any]:
    if isinstance(history, int | float | np.number):
        raise ArgumentError(f"history must be a list of items, or a mapping of names to lists (got {shown(history)})")
    if isinstance(history, Mapping):
        pairs = zip(_plain(history), history.values(), strict=True)
        return [{"item": item, "weight": float(weight)} for item, weight in pairs]
    return _plain(listed("history", history))


def _per_row(name: str, values: Any, names: list[Any]) -> list[list[Any] | None]:
    """``allow`` or ``deny`` for each row that is asked about."""
    if values is None:
        return [None] * len(names)
    if isinstance(values, Mapping):
        missing = [row for row in names if row not in values]
        if missing and name == "allow":
            raise ArgumentError(f"allow must have a list for everybody asked about (got none for {shown(missing[0])})")
        return [_plain(values.get(row, ())) for row in names]
    values = listed(name, values)
    if len(values) and all(not isinstance(one, str | bytes) and isinstance(one, Iterable) for one in values):
        if len(values) != len(names):
            raise ArgumentError(f"{name} must have {len(names)} lists, one per row asked (got {len(values)})")
        return [_plain(one) for one in values]
    return [_plain(values)] * len(names)


def _table(results: list[dict[str, Any]], named: Mapping[str, list[Any]], more: list[str], item: str = "item") -> Table:
    """Results in the columns of the library.

    Args:
        results: with ``items``.
        named: columns with one value for each result.
        more: further columns of the items, where there are any.
        item: name of the column of items.
    """
    rows = [row for result in results for row in result["items"]]
    sizes = [len(result["items"]) for result in results]
    columns = {
        name: [v for v, size in zip(values, sizes, strict=True) for _ in range(size)] for name, values in named.items()
    }
    source = columns.pop("source", None)
    columns |= {item: [row["item"] for row in rows], "score": [row["score"] for row in rows]}
    columns["rank"] = [rank for size in sizes for rank in range(1, size + 1)]
    columns |= {} if source is None else {"source": source}
    for name in more:
        if name != "title" or any(name in row for row in rows):
            columns[name] = [row.get(name, np.nan if name == "probability" else None) for row in rows]
    return Table({name: _column(name, values) for name, values in columns.items()})


def _column(name: str, values: list[Any]) -> np.ndarray[Any, Any]:
    if name in _TYPES:
        return np.array(values, _TYPES[name])
    if values and all(isinstance(value, int) for value in values):
        return np.array(values, np.int64)
    return np.array([*values, None], np.object_)[:-1]
