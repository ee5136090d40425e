"""What a client may ask for at most. Each limit is an option of ``hashlgn serve``: ``--max-body`` and so on."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from hashlgn.errors import ArgumentError, shown

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """What a client may ask for at most.

    Attributes:
        body: bytes of a body.
        head: bytes of the address and the headers of a request.
        k: items per answer.
        batch: members of a batch.
        list: items of a history, an allow list or a deny list.
        events: events of one request.
        waiting: requests that wait to be answered; who finds fewer is let in, a batch with all of its members.
        wait: seconds that a request may wait to be answered.
        send: seconds that a client may take to send a request.
        idle: seconds that a connection may rest, and that a client may take to receive an answer.
        connections: connections that are open.

    Raises:
        ArgumentError: one is not positive and finite.
    """

    body: int = 4 << 20
    head: int = 1 << 16
    k: int = 1000
    batch: int = 1000
    list: int = 10_000
    events: int = 10_000
    waiting: int = 2048
    wait: float = 5.0
    send: float = 10.0
    idle: float = 20.0
    connections: int = 800

    def __post_init__(self) -> None:
        for one in fields(self):
            if not 0 < getattr(self, one.name) < math.inf:
                raise ArgumentError(
                    f"max_{one.name} must be positive and finite (got {shown(getattr(self, one.name))})"
                )
