"""Made-up requests to a service: no answer is a 5xx or outside of the OpenAPI document.

``python tests/serve/fuzz_service.py 100000`` sends so many (``make fuzz-serve``). Schemathesis makes requests from the
document: one half is as the document allows, the other breaks it. To make one takes four times as long as to send it.
So each is followed by others that are put together of the parts of all that were made for its operation, and in half of
these the path names what exists, so that they get further than the first check. Schemathesis holds every answer against
the document.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi import checks as rules
from serve_help import N_ITEMS, N_USERS, running, two_models

CHECKS = [not_a_server_error, rules.status_code_conformance, rules.content_type_conformance]
CHECKS += [rules.response_schema_conformance, rules.response_headers_conformance]
ROUND = 50  # requests that are made for an operation and kind at a time, each time from another seed
MIXED = 4  # requests of known parts that follow each
PARTS = 1000  # requests of an operation whose parts are remembered
# On a busy machine the service may stand still for long: no limit of time of either side may end a request.
PATIENT = [part for name in ("wait", "send", "idle") for part in (f"--max-{name}", "600")]


def known(draw: random.Random, name: str) -> str:
    """An id that exists, or nearly."""
    if name == "version":
        return draw.choice(["first", "second"])
    return str(draw.randrange(N_ITEMS + 2 if name == "item" else 2 * N_USERS))


class Fuzz:
    """Requests to one service, and what was wrong with their answers."""

    def __init__(self, address: str, start: int) -> None:
        self.sent: Counter[tuple[str, int]] = Counter()
        self.wrong: dict[tuple[str, str], str] = {}  # by operation and what is wrong: the request
        self._parts: defaultdict[str, list[tuple[Any, Any, Any]]] = defaultdict(list)
        self._session = requests.Session()
        self._session.trust_env = False
        self._draw = random.Random(start)
        self._dead: set[tuple[str, GenerationMode]] = set()  # operations and kinds of which no request can be made
        schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
        self.operations = [found.ok() for found in schema.get_all_operations()]

    def round(self, number: int, count: int = ROUND) -> None:
        """So many requests of each operation and kind, and the others of their parts."""
        for operation in self.operations:
            varied = [*operation.query, *operation.body, *operation.path_parameters]
            for mode in list(GenerationMode) if varied else [GenerationMode.POSITIVE]:
                if (operation.label, mode) not in self._dead:
                    self._some(operation, mode, number, count)

    def _some(self, operation: Any, mode: GenerationMode, number: int, count: int) -> None:
        @seed(number)
        @settings(
            phases=[Phase.generate],
            max_examples=count,
            database=None,
            deadline=None,
            derandomize=False,
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(generation_mode=mode))
        def send(case: Any) -> None:
            self._send(case)
            parts = self._parts[operation.label]
            parts.insert(self._draw.randint(0, len(parts)), (case.path_parameters, case.query, case.body))
            del parts[PARTS:]
            if case.path_parameters or case.query or operation.body:
                for _ in range(MIXED):
                    self._send(self._mixed(case, parts))

        try:
            send()
        except Unsatisfiable:  # as where any text is allowed in a path: no request breaks that
            self._dead.add((operation.label, mode))

    def _mixed(self, case: Any, parts: list[tuple[Any, Any, Any]]) -> Any:
        """The request with its parts replaced by those of others."""
        case.path_parameters, case.query, case.body = (self._draw.choice(parts)[place] for place in range(3))
        if self._draw.random() < 0.5:
            case.path_parameters = {name: known(self._draw, name) for name in case.path_parameters or {}}
        return case

    def _send(self, case: Any) -> None:
        label = case.operation.label
        try:
            response = case.call(session=self._session, timeout=600)
            self.sent[label, response.status_code] += 1
            case.validate_response(response, checks=CHECKS)
        except FailureGroup as failures:
            for one in failures.exceptions:
                self.wrong.setdefault((label, str(one)[:300]), case.as_curl_command()[:2000])


def main(count: int) -> int:
    start = time.time_ns() % 2**32
    with tempfile.TemporaryDirectory() as folder:
        models = two_models(Path(folder))
        with running(*models.values(), "--journal", Path(folder) / "events.db", "--quiet", *PATIENT) as service:
            fuzz, began = Fuzz(f"http://127.0.0.1:{service.port}", start), time.monotonic()
            while (sent := fuzz.sent.total()) < count:
                fuzz.round(start + sent)
                spent = time.monotonic() - began
                print(f"{fuzz.sent.total()} requests in {spent:.0f} s, {len(fuzz.wrong)} wrong", flush=True)
            for (label, status), times in sorted(fuzz.sent.items()):
                print(f"{label}: {status} {times} times")
            for (label, why), request in fuzz.wrong.items():
                print(f"{label}: {why}\n  {request}")
            assert service.get("/health/ready")["status"] == "ready"
    return min(1, len(fuzz.wrong))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
