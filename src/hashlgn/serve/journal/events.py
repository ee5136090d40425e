"""Events as they come, checked and made into rows of the journal."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from hashlgn.data.arrays import WEIGHT_RULE, WEIGHTS
from hashlgn.data.values import read_ids
from hashlgn.errors import ArgumentError, DataError, shown

__all__ = ["SECOND", "Event", "HistoryEntry", "Id", "Outcome", "Row", "read_event", "read_id", "read_time", "time_text"]

Id = int | str
SECOND = 1_000_000  # times are microseconds since 1970 (UTC)
_AHEAD = 60 * SECOND  # a clock may run ahead by so much
_LAST = 253_402_300_800 * SECOND  # the year 10000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST = {"event_id": 256, "type": 64, "user": 1024, "item": 1024}  # characters


@dataclass(frozen=True, slots=True)
class Event:
    """That a user did something with an item.

    Attributes:
        user: id of the user, in the type of the model; text is read in that type.
        item: id of the item, likewise. An item that the model does not know is kept for the next training.
        event_id: name of the event: a second event of this name changes nothing. A new name where None.
        type: what was done, such as ``view``, or None.
        weight: how strong it is, from 1e-6 to 1e12.
        time: seconds since 1970, text in ISO 8601 (UTC where it names no zone), a datetime, or None for now. A time
            that is more than a minute ahead of the clock of the journal becomes now.
    """

    user: Any
    item: Any
    event_id: Any = None
    type: Any = None
    weight: Any = 1.0
    time: Any = None

    @classmethod
    def of(cls, fields: Any) -> Event:
        """The event of a mapping, as JSON gives it.

        Raises:
            ArgumentError: it is no mapping, lacks the user or the item, or has a field that an event does not have.
        """
        if not isinstance(fields, Mapping):
            raise ArgumentError(f"an event must be an object (got {shown(fields)})")
        for name in ("user", "item"):
            if fields.get(name) is None:
                raise ArgumentError(f"{name} must be given")
        odd = [name for name in fields if name not in cls.__slots__]
        if odd:
            raise ArgumentError(
                f"an event must have no other fields than {', '.join(cls.__slots__)} (got {shown(odd[0])})"
            )
        return cls(**fields)


class Row(NamedTuple):
    """An event as a row of the journal; ``time`` in microseconds since 1970."""

    event_id: str
    user: Id
    item: Id
    type: str | None
    weight: float
    time: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of events.

    Attributes:
        accepted: how many are on the disk now, and were not before.
        duplicates: how many had been accepted before, or were deleted since.
        rejected: position of each event that breaks a rule, and the rule.
    """

    accepted: int
    duplicates: int
    rejected: Sequence[tuple[int, str]] = ()


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One event of a history, or an interaction that the model was trained on.

    Attributes:
        item: id of the item.
        event_id: name of the event; None for an interaction of the training.
        type: what was done, or None.
        weight: how strong it is.
        time: microseconds since 1970, or None where it is not known.
    """

    item: Id
    event_id: str | None
    type: str | None
    weight: float
    time: int | None


def read_event(event: Any, types: tuple[str, str], now: int) -> Row:
    """A row of the journal from anything with the attributes of an ``Event``.

    Args:
        event: as a caller gave it.
        types: type of the ids of users and of items, ``"int"`` or ``"str"``.
        now: microseconds since 1970.

    Raises:
        ArgumentError: a field breaks its rule.
    """
    user, item = read_id("user", event.user, types[0]), read_id("item", event.item, types[1])
    event_id = event.event_id
    name = f"{now:015x}{secrets.token_hex(8)}" if event_id is None else _text("event_id", event_id)
    kind = None if event.type is None else _text("type", event.type)
    weight = event.weight
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not WEIGHTS[0] <= weight <= WEIGHTS[1]:
        raise ArgumentError(f"weight must be {WEIGHT_RULE} (got {shown(weight)})")
    time = read_time(event.time, now)
    return Row(name, user, item, kind, float(weight), now if time > now + _AHEAD else time)


def read_id(name: str, value: Any, id_type: str) -> Id:
    """An id in the type of a catalogue.

    Raises:
        ArgumentError: it cannot be of that type.
    """
    if id_type == "int":
        number = value if type(value) is int else _integer(name, value)
        if not -(2**63) <= number < 2**63:
            raise ArgumentError(f"{name} must fit into 64 signed bits (got {shown(value)})")
        return number
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        try:
            value = read_ids([value], name).typed("str").array[0].as_py()
        except DataError as error:
            raise ArgumentError(str(error)) from error
    return _text(name, value)


def _integer(name: str, value: Any) -> int:
    if isinstance(value, str) and len(value) < 19 and value.isascii() and value.removeprefix("-").isdecimal():
        return int(value)
    try:
        return int(read_ids([value], name).typed("int").array[0].as_py())
    except DataError as error:
        raise ArgumentError(f"{name} must be an integer, as the known ones are (got {shown(value)})") from error


def _text(name: str, value: Any) -> str:
    longest = _LONGEST[name]
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        raise ArgumentError(f"{name} must be text of 1 to {longest} characters (got {shown(value)})")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ArgumentError(f"{name} must be valid Unicode (got {shown(value)})") from None
    return value


def read_time(value: Any, now: int) -> int:
    """Microseconds since 1970 of a time as a caller gave it; ``now`` for None.

    Raises:
        ArgumentError: it is no time from 1970 to 9999.
    """
    if value is None:
        return now
    time = -1
    if isinstance(value, int | float) and not isinstance(value, bool):
        if -1e12 < value < 1e12 and not math.isnan(value):
            time = value * SECOND if isinstance(value, int) else round(value * SECOND)
    else:
        try:
            moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            time = (moment - _EPOCH) // timedelta(microseconds=1)
        except (TypeError, ValueError, OverflowError):
            pass
    if not 0 <= time < _LAST:
        raise ArgumentError(
            "time must be seconds since 1970 or text such as 2026-01-31T12:00:00Z, up to the year 9999 "
            f"(got {shown(value)})"
        )
    return time


def time_text(time: int) -> str:
    """A time in ISO 8601, such as ``2026-01-31T12:00:00.000000Z``."""
    return (_EPOCH + timedelta(microseconds=time)).isoformat(timespec="microseconds").replace("+00:00", "Z")
