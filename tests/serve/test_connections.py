"""Connections over real sockets: who is slow is cut off, too much is refused, and requests keep their order."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serve_help import Running, running, saved

GET = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("connections")
    limits = ["--max-send", "0.6", "--max-idle", "1.2", "--max-body", "1000", "--max-head", "2000", "--max-k", "7"]
    limits += ["--max-list", "3", "--max-batch", "2", "--max-events", "2", "--max-connections", "5"]
    with running(saved(folder, "one", 1), "--journal", folder / "events.db", *limits) as started:
        yield started


def connected(service: Running) -> socket.socket:
    """A new connection, as soon as the ones before have been let go."""
    end = time.monotonic() + 5
    while True:
        made = socket.create_connection(("127.0.0.1", service.port), timeout=10)
        made.sendall(GET)
        if b"200 OK" in read(made):
            return made
        made.close()
        assert time.monotonic() < end
        time.sleep(0.05)


def read(connection: socket.socket) -> bytes:
    """One answer, or as much of it as there is."""
    data = b""
    while True:
        head, end, body = data.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]):
            return data
        more = connection.recv(1)
        if not more:
            return data
        data += more


def trickled(connection: socket.socket, data: bytes, pause: float) -> bytes:
    """What is answered while a byte is sent now and then."""
    connection.settimeout(pause)
    heard = b""
    for position in range(len(data)):
        try:
            connection.sendall(data[position : position + 1])
            heard += connection.recv(1)
            connection.settimeout(10)
            return heard + read(connection)
        except TimeoutError:
            continue
        except OSError:
            break
    return heard


def error_of(answer: bytes) -> dict[str, str]:
    found: dict[str, str] = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    return found


def ended(connection: socket.socket, within: float) -> bool:
    """Whether the service closes a connection in time."""
    connection.settimeout(within)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def test_a_head_that_never_ends_is_cut_off(service: Running) -> None:
    connection = connected(service)
    start = time.monotonic()
    answer = trickled(connection, b"GET /health/live HTTP/1.1\r\nx-slow: " + b"a" * 200, 0.05)
    assert answer.startswith(b"HTTP/1.1 408") and error_of(answer)["field"] == "headers"
    assert "--max-send" in error_of(answer)["message"] and 0.5 < time.monotonic() - start < 5
    assert ended(connection, 5)


def test_a_body_that_never_ends_is_cut_off(service: Running) -> None:
    connection = connected(service)
    head = b"POST /v1/sessions HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n"
    connection.sendall(head)
    answer = trickled(connection, b" " * 300, 0.05)
    assert answer.startswith(b"HTTP/1.1 408") and error_of(answer)["field"] == "body"
    connection.sendall(b" ")  # it goes on as if nothing had happened
    connection.shutdown(socket.SHUT_WR)
    assert ended(connection, 5)


def test_a_connection_at_rest_is_closed(service: Running) -> None:
    assert ended(connected(service), 5)
    silent = socket.create_connection(("127.0.0.1", service.port))
    assert ended(silent, 5)  # it never said a word


def test_a_client_that_does_not_read_is_cut_off(service: Running) -> None:
    connection = socket.create_connection(("127.0.0.1", service.port))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    request = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n"
    end = time.monotonic() + 15
    while time.monotonic() < end:  # it asks, and never takes an answer
        try:
            connection.send(request * 50)
        except BlockingIOError:
            time.sleep(0.05)
        except ConnectionError:
            break
    else:
        raise AssertionError("the connection was held for ever")


def test_too_much_is_refused_with_the_name_of_the_limit(service: Running) -> None:
    connection = connected(service)
    connection.sendall(b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 1001\r\n\r\n" + b" " * 1001)
    answer = read(connection)
    assert answer.startswith(b"HTTP/1.1 413") and "--max-body" in error_of(answer)["message"]
    assert b"\r\nconnection: close\r\n" in answer
    connection = connected(service)
    connection.sendall(b"POST /v1/events HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    connection.sendall(b"400\r\n" + b" " * 1024 + b"\r\n")
    assert read(connection).startswith(b"HTTP/1.1 413")
    connection = connected(service)
    connection.sendall(b"GET / HTTP/1.1\r\nx-long: " + b"a" * 3000)
    assert read(connection).startswith(b"HTTP/1.1 431")
    for path, body, name in (
        ("/v1/sessions", {"history": [1], "k": 8}, "--max-k"),
        ("/v1/sessions", {"history": [1, 2, 3, 4]}, "--max-list"),
        ("/v1/recommendations", {"requests": [{"user": 1}] * 3}, "--max-batch"),
        ("/v1/events", [{"user": 1, "item": 1}] * 3, "--max-events"),
    ):
        status, found = service.ask("POST", path, body)
        assert status == 422 and name in found["error"]["message"]
    document = service.get("/openapi.json")
    k = next(one for one in document["paths"]["/v1/items"]["get"]["parameters"] if one["name"] == "k")
    assert k["schema"]["maximum"] == 7


def test_too_many_connections_are_refused_and_the_others_served(service: Running) -> None:
    first = connected(service)
    open_ = [socket.create_connection(("127.0.0.1", service.port), timeout=5) for _ in range(8)]
    answers = []
    for connection in open_[4:]:
        connection.sendall(GET)
        answers.append(read(connection))
    assert all(answer.startswith(b"HTTP/1.1 503") and b"\r\nretry-after: 1\r\n" in answer for answer in answers)
    assert "--max-connections" in error_of(answers[0])["message"]
    first.sendall(GET)
    assert b"200 OK" in read(first)
    for connection in open_:
        connection.close()


def test_requests_sent_at_once_are_answered_in_order(service: Running) -> None:
    connection = connected(service)
    paths = [f"/v1/users/{user}/recommendations?k=2" for user in range(20)]
    connection.sendall(b"".join(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode() for path in paths))
    users = [json.loads(read(connection).partition(b"\r\n\r\n")[2])["user"] for _ in paths]
    assert users == list(range(20))


def test_what_is_no_http_is_refused_behind_what_is(service: Running) -> None:
    connection = connected(service)
    connection.sendall(GET + b"nonsense\r\n\r\n")
    assert read(connection).startswith(b"HTTP/1.1 200")
    answer = read(connection)
    assert answer.startswith(b"HTTP/1.1 400") and error_of(answer)["code"] == "bad_http"


def test_heads_versions_chunks_and_half_closed_connections(service: Running) -> None:
    connection = connected(service)
    connection.sendall(b"HEAD /health/live HTTP/1.1\r\nhost: x\r\n\r\n" + GET)
    head = connection.recv(4096)
    while head.count(b"HTTP/1.1 200") < 2 or not head.endswith(b"}"):
        head += connection.recv(4096)
    assert head.count(b'{"status":"live"}') == 1
    session = json.dumps({"history": [5], "k": 1}).encode()
    connection.sendall(b"POST /v1/sessions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    for piece in (session[:4], session[4:]):
        connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
    connection.sendall(b"0\r\n\r\n")
    assert b"200 OK" in read(connection)
    expects = b"POST /v1/sessions HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n"
    connection.sendall(expects % len(session))
    assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(session)
    assert b"200 OK" in read(connection)
    connection.sendall(GET)
    connection.shutdown(socket.SHUT_WR)
    assert b"200 OK" in read(connection) and ended(connection, 5)
    for request in (b"GET /health/live HTTP/1.0\r\n\r\n", GET.replace(b"host: x", b"connection: close")):
        connection = connected(service)
        connection.sendall(request)
        assert b"\r\nconnection: close\r\n" in read(connection) and ended(connection, 5)
    connection = connected(service)  # no other protocol is spoken
    connection.sendall(GET.replace(b"host: x", b"host: x\r\nconnection: upgrade\r\nupgrade: websocket"))
    assert b"200 OK" in read(connection) and ended(connection, 5)


def test_messages_name_the_field_the_rule_and_the_value(service: Running) -> None:
    fields = "user, history, k, threshold, calibrated, filter_seen, allow, deny, explain, filters, model"
    fields += ", on_unknown, on_empty"
    for body, message in (
        ({"history": [5], "k": "7"}, 'k must be int or null (got "7")'),
        ({"history": [5], "k": 0}, "k must be int >= 1 (got 0)"),
        ({"history": [{"item": 5, "weight": -1}]}, "history[0].weight must be float >= 1e-06 (got -1)"),
        ({"history": [5], "colour": 1}, f"colour is no field that is known here; fields are {fields}"),
        ({"history": [{"weight": 1}]}, "history[0].item must be given"),
        ([], "body must be object (got [])"),
    ):
        assert service.ask("POST", "/v1/sessions", body)[1]["error"]["message"] == message


def test_the_end_of_the_service_waits_for_a_request_that_has_begun(tmp_path: Path) -> None:
    with running(saved(tmp_path, "one", 1)) as service:
        resting = connected(service)
        connection = connected(service)
        connection.sendall(GET[:20])
        service.process.terminate()
        assert ended(resting, 5)
        connection.sendall(GET[20:])
        answer = read(connection)
        assert b"200 OK" in answer and b"\r\nconnection: close\r\n" in answer
