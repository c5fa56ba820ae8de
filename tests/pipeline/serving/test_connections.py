import contextlib
import json
import select
import socket
import time

import pytest

from pipeline.serving.connections import LONGEST_HEAD

LIVE = b"GET /live HTTP/1.1\r\nhost: a\r\n\r\n"


@pytest.fixture
def body(row):
    return json.dumps({"rows": [row]}).encode()


def post(body, length=None, more=b""):
    head = b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    return head + more + b"content-length: %d\r\n\r\n" % (length or len(body)) + body


def connect(port, source="127.0.0.1", **options):
    sock = socket.socket()
    for name, value in options.items():
        sock.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
    sock.bind((source, 0))
    sock.settimeout(20)
    sock.connect(("127.0.0.1", port))
    return sock


def read_all(sock):
    """Everything until the server closes the connection."""
    parts = []
    try:
        while part := sock.recv(65_536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def ask(port, request, source="127.0.0.1"):
    with connect(port, source) as sock:
        sock.sendall(request)
        return sock.recv(65_536)


def trickle(sock, request, seconds):
    """Send a request byte by byte until it is answered or time is over; the answer."""
    end = time.monotonic() + seconds
    sock.settimeout(0.05)
    for byte in request:
        try:
            sock.sendall(bytes([byte]))
            if answer := sock.recv(65_536):
                return answer
        except TimeoutError:
            continue
        except OSError:
            return b""
        if time.monotonic() > end:
            break
    return pytest.fail("the server waits for ever")


@pytest.mark.parametrize(
    "head",
    [
        b"x: %s\r\n" % (b"a" * 100_000),
        b"".join(b"x%d: a\r\n" % i for i in range(20_000)),
        b"x" * 100_000,
    ],
    ids=["long value", "many", "long name"],
)
def test_headers_that_are_too_long_are_refused(serve, head):
    with serve() as port, connect(port) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(b"GET /live HTTP/1.1\r\n" + head + b"\r\n")
        answer = read_all(sock)
        alive = ask(port, LIVE)

    assert answer.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400")) or not answer
    assert alive.startswith(b"HTTP/1.1 200")


def test_headers_up_to_the_limit_are_taken_and_the_limit_is_said(serve, body):
    with serve() as port:
        fits = ask(port, post(body, more=b"x: %s\r\n" % (b"a" * (LONGEST_HEAD - 5_000))))
        too_long = ask(port, b"GET /live HTTP/1.1\r\nx: %s" % (b"a" * LONGEST_HEAD))

    assert fits.startswith(b"HTTP/1.1 200")
    assert too_long.startswith(b"HTTP/1.1 431 Request Header Fields Too Large")
    assert b"at most 16,384 bytes besides its body" in too_long


@pytest.mark.parametrize(
    "part", [b"1;%s\r\nx\r\n" % (b"a" * 99_000), b"0\r\nt: %s" % (b"a" * 99_000)]
)
def test_chunks_may_not_be_longer_than_what_they_carry(serve, part):
    head = b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    with serve() as port, connect(port) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(head + b"transfer-encoding: chunked\r\n\r\n" + part)
        answer = read_all(sock)

    assert not answer.startswith(b"HTTP/1.1 200")


def test_a_body_in_small_chunks_is_read(serve, body):
    head = b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    body += b" " * (20_000 - len(body))
    chunks = b"".join(b"8\r\n%s\r\n" % body[i : i + 8] for i in range(0, len(body), 8))
    with serve() as port:
        answer = ask(port, head + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("first", [b"", LIVE], ids=["new", "kept alive"])
@pytest.mark.parametrize(
    "slow",
    [LIVE[:-2] + b"x: " + b"a" * 500, b"\r\n" * 500, b"GET /" + b"a" * 500],
    ids=["headers", "lines", "path"],
)
def test_slow_headers_are_cut_off(serve, first, slow):
    with serve(timeout="500ms") as port, connect(port) as sock:
        if first:
            sock.sendall(first)
            assert sock.recv(65_536).startswith(b"HTTP/1.1 200")
        answer = trickle(sock, slow, seconds=10)

    assert answer.startswith(b"HTTP/1.1 408") or not answer


def test_slow_bodies_take_no_place_from_others(serve, body):
    with serve(timeout="60s", max_requests=1, max_bytes=10_000) as port:
        slow = [connect(port) for _ in range(60)]
        for sock in slow:
            sock.sendall(post(body[:20], length=5_000))
        answers = [ask(port, post(body)) for _ in range(20)]
        ended, _, _ = select.select(slow, [], [], 0)
        for sock in slow:
            sock.close()

    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    assert not ended


def test_slow_bodies_are_cut_off(serve, body):
    with serve(timeout="500ms", max_requests=1) as port:
        slow = [connect(port) for _ in range(60)]
        for sock in slow:
            sock.sendall(post(body[:20], length=5_000))
        ended = [read_all(sock) for sock in slow]
        for sock in slow:
            sock.close()

    assert all(answer.startswith(b"HTTP/1.1 408") for answer in ended)
    assert all(b"connection: close" in answer for answer in ended)


def test_bodies_that_are_held_are_limited_in_all(serve):
    with serve(max_bytes=1_000_000) as port:
        held = [connect(port) for _ in range(20)]
        for sock in held:
            sock.sendall(post(b" " * 900_000, length=1_000_000))
        end = time.monotonic() + 60
        while len(select.select(held, [], [], 0)[0]) < 12 and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(0.5)
        for sock in held:
            sock.settimeout(0.2)
        refused = 0
        for sock in held:
            try:
                refused += sock.recv(65_536).startswith(b"HTTP/1.1 503")
            except (TimeoutError, ConnectionResetError):
                continue
            finally:
                sock.close()
        time.sleep(0.2)
        later = ask(port, post(b" " * 900_000))

    assert 12 <= refused <= 17
    assert later.startswith(b"HTTP/1.1 422")


def test_a_client_that_takes_no_answers_is_cut_off(serve, row):
    body = json.dumps({"rows": [row] * 9_000}).encode()
    with serve(timeout="1s") as port, connect(port, SO_RCVBUF=4_096) as sock:
        sock.settimeout(1)
        try:
            for _ in range(20):
                sock.sendall(post(body))
        except (TimeoutError, ConnectionError):
            pass
        time.sleep(4)
        answer = ask(port, LIVE)
        sock.settimeout(5)
        left = read_all(sock)

    assert answer.startswith(b"HTTP/1.1 200")
    assert left.count(b"HTTP/1.1 200") < 20


def test_connections_are_limited_for_a_client_and_in_all(serve):
    with serve(max_connections=12, max_client_connections=8) as port:
        one = [connect(port, "127.0.0.2") for _ in range(10)]
        refused = [read_all(sock) for sock in one[8:]]
        other = ask(port, LIVE)
        more = [connect(port, "127.0.0.3") for _ in range(8)]
        full = ask(port, LIVE)
        for sock in (*one, *more):
            sock.close()
        time.sleep(0.2)
        after = ask(port, LIVE)

    assert all(answer.startswith(b"HTTP/1.1 503") for answer in refused)
    assert (other[9:12], full[9:12], after[9:12]) == (b"200", b"503", b"200")


def test_requests_of_one_connection_wait_for_each_other_and_for_nobody_else(serve, body):
    wrong = json.dumps({"rows": [1] * 900}).encode()
    with serve() as port, connect(port) as sock:
        sock.setblocking(False)
        try:
            while True:
                sock.send(post(wrong) * 20)
        except BlockingIOError:
            pass
        answers = [ask(port, post(body)) for _ in range(20)]
        sock.settimeout(20)
        received = sock.recv(65_536)

    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    assert received.startswith(b"HTTP/1.1 422")


def test_pipelined_requests_are_all_answered_in_their_order(serve, row):
    bodies = [json.dumps({"rows": [row], "keys": [f"key-{i}"]}).encode() for i in range(200)]
    with serve() as port, connect(port) as sock:
        sock.sendall(b"".join(map(post, bodies)))
        received = b""
        while received.count(b"HTTP/1.1 200") < 200 or not received.endswith(b"}"):
            received += sock.recv(65_536)

    places = [received.index(b'"key-%d"' % i) for i in range(200)]
    assert places == sorted(places)


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01 tls",
        b"GET\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"POST / HTTP/9.9\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused_in_json(serve, request_):
    with serve() as port, connect(port) as sock:
        sock.sendall(request_ + b"\r\n\r\n")
        answer = read_all(sock)

    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.endswith(b'{"error":"A request must be valid HTTP/1.1."}')


@pytest.mark.parametrize(
    "hosts",
    [
        b"",
        b"host: a\r\nhost: a\r\n",
        b"host: a\r\nHost: b\r\n",
        *(
            b"host: %s\r\n" % bad
            for bad in (b"a b", b"a/b", b"me@a", b"a:b", b"[::1", b"a,b c", b"\xff")
        ),
    ],
)
@pytest.mark.parametrize("line", [b"GET /live", b"GET /version", b"POST /predict"])
def test_a_request_without_one_valid_host_is_refused(serve, line, hosts):
    head = line + b" HTTP/1.1\r\ncontent-type: application/json\r\n"
    with serve() as port, connect(port) as sock:
        sock.sendall(head + hosts + b"content-length: 2\r\n\r\n{}")
        answer = read_all(sock)

    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.endswith(
        b'{"error":"A request must have one Host header, with a host and perhaps a port."}'
    )


@pytest.mark.parametrize("host", [b"", b"a", b"a:", b"A-b.example:80", b"10.0.0.1:80", b"[::1]:80"])
def test_a_request_with_a_valid_host_is_answered(serve, host):
    with serve() as port:
        answer = ask(port, b"GET /live HTTP/1.1\r\nHost: %s\r\n\r\n" % host)
        older = ask(port, b"GET /live HTTP/1.0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200")
    assert older.startswith(b"HTTP/1.1 200")


def test_a_body_in_another_coding_than_chunks_is_refused(serve, body):
    head = b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    with serve() as port, connect(port) as sock:
        sock.sendall(head + b"transfer-encoding: gzip, chunked\r\n\r\n")
        sock.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        answer = read_all(sock)

    assert answer.startswith(b"HTTP/1.1 415")


def test_a_refusal_before_the_body_closes_the_connection(serve):
    with serve(token="s3cret", max_bytes=1_000) as port, connect(port) as sock:  # noqa: S106
        sock.sendall(post(b"", length=9_000_000))
        answer = read_all(sock)

    assert answer.startswith(b"HTTP/1.1 401")
