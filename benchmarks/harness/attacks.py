"""Attacks on a server: `python -m benchmarks.harness.attacks NAME PORT SECONDS ROW TOKEN SEED`.

Each runs in a process of its own for some seconds, from other addresses than honest clients, and
prints what the server answered. ROW is a JSON object, the example of a row.
"""

import json
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

RANDOM: Final = random.Random()  # noqa: S311 -- no secrets are made
ADDRESSES: Final = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
CONNECTIONS: Final = 8
"""Connections that send requests as fast as they are answered."""
MANY: Final = 200
"""Connections that are slow."""
INFER: Final = "/v2/models/bench/infer"
WORDS: Final = (b"Traceback", b"site-packages", b"s3cret", b'File "')
"""What no answer may hold."""
Request = bytes


class Report:
    """What a server answered, counted by threads.

    Attributes
    ----------
    statuses : Counter of int
        Answers by status.
    largest : int
        Bytes of the longest body of a refusal.
    leaks : Counter of str
        Forbidden words that were found.
    """

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.leaks: Counter[str] = Counter()
        self.largest = 0
        self._lock = threading.Lock()

    def add(self, head: bytes, body: bytes) -> None:
        with self._lock:
            status = int(head[9:12]) if head[9:12].isdigit() else 0
            self.statuses[status] += 1
            self.leaks.update(word.decode() for word in WORDS if word in head + body)
            if 400 <= status < 500:
                self.largest = max(self.largest, len(body))


def connect(seconds: float = 10) -> socket.socket:
    one = socket.socket()
    one.bind((RANDOM.choice(ADDRESSES), 0))
    one.settimeout(seconds)
    one.connect(("127.0.0.1", PORT))
    return one


def read(one: socket.socket, report: Report) -> bool:
    """Read an answer; whether the connection can be used again."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = one.recv(65_536)
        if not part:
            return False
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    lines = dict(line.lower().partition(b": ")[::2] for line in head.split(b"\r\n")[1:])
    length = int(lines.get(b"content-length", b"0"))
    while len(body) < length:
        part = one.recv(65_536)
        if not part:
            break
        body += part
    report.add(head, body)
    return lines.get(b"connection") != b"close" and not lines.get(b"transfer-encoding")


def post(route: str, body: bytes, kind: str = "application/json", more: str = "") -> Request:
    token = f"authorization: Bearer {TOKEN}\r\n"
    head = f"POST {route} HTTP/1.1\r\nhost: a\r\n{token}content-type: {kind}\r\n{more}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def get(route: str, method: str = "GET", more: str = "") -> Request:
    return f"{method} {route} HTTP/1.1\r\nhost: a\r\n{more}\r\n".encode()


def authorized(route: str, method: str = "GET") -> Request:
    return get(route, method, f"authorization: Bearer {TOKEN}\r\n")


def flood(requests: Callable[[], Request], until: float, report: Report) -> None:
    """Send requests on some connections as fast as they are answered."""

    def run() -> None:
        one = None
        while time.monotonic() < until:
            try:
                one = one or connect()
                one.sendall(requests())
                usable = read(one, report)
            except OSError:
                usable = False
            if not usable and one is not None:
                one.close()
                one = None
        if one is not None:
            one.close()

    _together(run, CONNECTIONS)


def pipeline(request: Request, until: float, report: Report) -> None:
    """Send requests on some connections without waiting for answers."""

    def run() -> None:
        while time.monotonic() < until:
            with suppress(OSError), connect(1) as one:
                reader = threading.Thread(target=_drain, args=(one, until, report))
                reader.start()
                with suppress(OSError):
                    while time.monotonic() < until:
                        one.sendall(request * 50)
                one.close()
                reader.join()

    _together(run, CONNECTIONS)


def _drain(one: socket.socket, until: float, report: Report) -> None:
    with suppress(OSError):
        while time.monotonic() < until:
            data = one.recv(65_536)
            if not data:
                break
            for part in data.split(b"HTTP/1.1 ")[1:]:
                report.add(b"HTTP/1.1 " + part[:3], part)


def trickle(start: bytes, drop: bytes, until: float, report: Report) -> None:
    """Hold many connections open, each of which sends a little from time to time."""
    held: list[socket.socket] = []
    while time.monotonic() < until:
        while len(held) < MANY:
            try:
                one = connect(1)
                one.sendall(start)
                one.setblocking(False)
            except OSError:
                break
            held.append(one)
        for one in [*held]:
            try:
                if drop:
                    one.send(drop)
                data = one.recv(65_536)
                if data:
                    report.add(data[:12], data)
                held.remove(one)
                one.close()
            except BlockingIOError:
                continue
            except OSError:
                held.remove(one)
                one.close()
        time.sleep(0.2)
    for one in held:
        one.close()


def unread(request: Request, until: float, _report: Report) -> None:
    """Ask for long answers and take none of them."""
    held: list[socket.socket] = []
    while time.monotonic() < until:
        with suppress(OSError):
            one = connect(0.5)
            held.append(one)
            for _ in range(5):
                one.sendall(request)
    for one in held:
        one.close()


def hang_up(start: bytes, until: float, _report: Report) -> None:
    """Send the beginning of a request and reset the connection."""

    def run() -> None:
        while time.monotonic() < until:
            with suppress(OSError), connect() as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                one.sendall(start)

    _together(run, CONNECTIONS)


def _together(work: Callable[[], None], n: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def rows(n: int, **changed: Any) -> bytes:
    return json.dumps({"rows": [ROW | changed] * n}).encode()


def many(value: bytes, n: int) -> bytes:
    return b",".join([value] * n)


def keys(n: int) -> bytes:
    return b",".join(b'"k%d":1' % i for i in range(n))


def tensors(**changed: Any) -> bytes:
    inputs = [
        {
            "name": name,
            "shape": [1],
            "datatype": "BYTES" if isinstance(value, str) else "FP64",
            "data": [value],
        }
        for name, value in ROW.items()
    ]
    return json.dumps({"inputs": inputs} | changed).encode()


def mutated() -> Request:
    """A valid request with some bytes changed, its length kept."""
    body = bytearray(rows(2))
    for _ in range(RANDOM.randrange(1, 6)):
        body[RANDOM.randrange(len(body))] = RANDOM.randrange(256)
    routes = ["/predict", "/invocations", "/labels", INFER]
    return post(RANDOM.choice(routes), bytes(body))


def garbage() -> Request:
    return RANDOM.randbytes(RANDOM.randrange(1, 2_000)) + b"\r\n\r\n"


def bodies() -> dict[str, Callable[[], Request]]:
    """Requests that are sent as they are, one after the other."""
    labels = [{"key": f"key-{i}", "target": 1} for i in range(10_000)]
    opposed = [{"key": "a", "target": i % 2} for i in range(10_000)]
    return {
        "unknown keys in a row": lambda: post("/predict", b'{"rows":[{%s}]}' % keys(600_000)),
        "unknown keys in a label": lambda: post("/labels", b'{"labels":[{%s}]}' % keys(600_000)),
        "unknown keys of a request": lambda: post("/predict", b"{%s}" % keys(500_000)),
        "lines of CSV": lambda: post("/invocations", b"x0\n" + b"1\n" * 3_900_000, "text/csv"),
        "a header of commas": lambda: post("/invocations", b"," * 7_000_000, "text/csv"),
        "an open quote in CSV": lambda: post(
            "/invocations", b'x0\n"' + b"a" * 7_000_000, "text/csv"
        ),
        "wrong rows": lambda: post("/predict", b'{"rows":[%s]}' % many(b"1", 1_000)),
        "lists for rows": lambda: post("/predict", b'{"rows":[%s]}' % many(b"[]", 2_500_000)),
        "objects for rows": lambda: post("/predict", b'{"rows":[%s]}' % many(b"{}", 10_000)),
        "numbers for rows": lambda: post("/predict", b'{"rows":[%s]}' % many(b"1", 3_900_000)),
        "wrong values in all rows": lambda: post("/predict", rows(5_000, x0="a", x1=None, c0=5)),
        "wrong keys of rows": lambda: post(
            "/predict", b'{"rows":[],"keys":[%s]}' % many(b"1", 99_999)
        ),
        "a text of 7 MB": lambda: post("/predict", b'{"rows":[{"c0":"%s"}]}' % (b"a" * 7_000_000)),
        "escapes": lambda: post("/predict", b'{"rows":[{"c0":"%s"}]}' % (b"\\u0000" * 1_200_000)),
        "deep JSON": lambda: post("/predict", b"[" * 7_000_000),
        "deep objects": lambda: post("/predict", b'{"rows":' * 900_000),
        "long numbers": lambda: post("/predict", b'{"rows":[{"x0":%s}]}' % (b"9" * 7_000_000)),
        "NaN and infinity": lambda: post(
            "/predict", b'{"rows":[{"x0":NaN,"x1":Infinity,"x2":1e999}]}'
        ),
        "half of a pair": lambda: post("/predict", b'{"rows":[{"c0":"\\ud800"}]}'),
        "a key twice": lambda: post("/predict", b'{"rows":[{%s}]}' % many(b'"x0":1', 5_000)),
        "long valid requests": lambda: post("/predict", rows(9_000)),
        "values out of range": lambda: post(
            "/predict?explain=ranges", rows(9_000, x0=1e9, x1=-1e9)
        ),
        "many labels": lambda: post("/labels", json.dumps({"labels": labels}).encode()),
        "contradicting labels": lambda: post("/labels", json.dumps({"labels": opposed}).encode()),
        "outputs that are a number": lambda: post(INFER, tensors(outputs=5)),
        "parameters that are a list": lambda: post(INFER, tensors(parameters=[])),
        "many tensors": lambda: post(INFER, b'{"inputs":[%s]}' % many(b"{}", 900_000)),
        "a long tensor": lambda: post(INFER, b'{"inputs":[{"data":[%s]}]}' % many(b"1", 3_500_000)),
        "wide rows": lambda: post("/invocations", b'{"inputs":{"x0":[%s]}}' % many(b"1", 400_000)),
        "wide split": lambda: post(
            "/invocations", b'{"dataframe_split":{"columns":[],"data":[%s]}}' % many(b"[]", 900_000)
        ),
        "text from a web page": lambda: post("/labels", b'{"labels":[]}', "text/plain"),
        "another site's page": lambda: post(
            "/predict", rows(1), more="origin: http://evil.example\r\n"
        ),
        "a compressed body": lambda: post(
            "/predict", b"\x1f\x8b" * 9_000, more="content-encoding: gzip\r\n"
        ),
        "a binary tensor": lambda: post(
            INFER, tensors(), more="inference-header-content-length: 9\r\n"
        ),
        "too long a body": lambda: post("/predict", b" " * 9_000_000),
        "no token": lambda: post("/predict", rows(5_000)).replace(TOKEN.encode(), b"wrong"),
        "an unknown model": lambda: post("/v2/models/%2e%2e%2fetc/versions/9/infer", tensors()),
    }


def plain() -> dict[str, Callable[[], Request]]:
    """Requests without a body, and requests that are not HTTP."""
    chunked = post("/predict", b"").replace(b"content-length: 0", b"transfer-encoding: chunked")
    return {
        "readiness": lambda: get("/ready"),
        "metrics": lambda: authorized("/metrics"),
        "the OpenAPI document": lambda: authorized("/openapi.json"),
        "slashes and hosts": lambda: get("/predict/", more="x-forwarded-host: evil.example\r\n"),
        "another method": lambda: authorized("/predict", "DELETE"),
        "a long path": lambda: get("/" + "a" * 15_000),
        "a long header": lambda: get("/live", more=f"x: {'a' * 90_000}\r\n"),
        "many headers": lambda: get("/live", more="".join(f"x{i}: a\r\n" for i in range(9_000))),
        "an upgrade": lambda: get("/live", more="connection: upgrade\r\nupgrade: websocket\r\n"),
        "two lengths": lambda: get(
            "/predict", "POST", "content-length: 5\r\ncontent-length: 6\r\n"
        ),
        "a negative length": lambda: get("/predict", "POST", "content-length: -5\r\n"),
        "length and chunks": lambda: get(
            "/predict", "POST", "content-length: 5\r\ntransfer-encoding: chunked\r\n"
        ),
        "a long chunk extension": lambda: chunked + b"1;" + b"a" * 90_000 + b"\r\nx\r\n0\r\n\r\n",
        "long trailers": lambda: chunked + b"0\r\nx: " + b"a" * 90_000 + b"\r\n\r\n",
        "small chunks": lambda: chunked + b"1\r\n \r\n" * 100_000 + b"0\r\n\r\n",
        "TLS": lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    }


Attack = Callable[[float, Report], None]


def attacks() -> Mapping[str, Callable[[], Attack]]:
    """All attacks by name; what they send is made when they are asked for."""
    wrong = post("/predict", b'{"rows":[%s]}' % many(b"1", 1_000))
    begun = post("/predict", rows(1))[:-100]
    stalled = post("/predict", b" " * 7_900_000)[:-900]
    held: dict[str, tuple[Callable[..., None], Any, Any]] = {
        "pipelined wrong rows": (pipeline, wrong, None),
        "pipelined rows": (pipeline, post("/predict", rows(1)), None),
        "pipelined probes": (pipeline, get("/live"), None),
        "slow headers": (trickle, b"GET /live HTTP/1.1\r\nx: ", b"a"),
        "slow lines": (trickle, b"\r\n", b"\r\n"),
        "slow bodies": (trickle, begun, b"1"),
        "stalled bodies of 8 MB": (trickle, stalled, b""),
        "idle connections": (trickle, b"", b""),
        "answers that nobody takes": (unread, post("/predict", rows(9_000)), None),
        "resets within bodies": (hang_up, stalled[:900_000], None),
        "resets within headers": (hang_up, b"POST /predict HTTP/1.1\r\nho", None),
        "changed bytes": (flood, mutated, None),
        "random bytes": (flood, garbage, None),
    }
    floods = {name: partial(_flooding, made) for name, made in (bodies() | plain()).items()}
    return floods | {name: partial(_holding, *one) for name, one in held.items()}


def _flooding(made: Callable[[], Request]) -> Attack:
    request = made()
    return partial(flood, lambda: request)


def _holding(work: Callable[..., None], first: Any, second: Any) -> Attack:
    return partial(work, first) if second is None else partial(work, first, second)


def main() -> None:
    attack = attacks()[sys.argv[1]]()
    report = Report()
    attack(time.monotonic() + float(sys.argv[3]), report)
    said = {"statuses": report.statuses, "largest": report.largest, "leaks": report.leaks}
    print(json.dumps(said))


if __name__ == "__main__":
    PORT, TOKEN = int(sys.argv[2]), sys.argv[5]
    ROW: dict[str, Any] = json.loads(sys.argv[4])
    RANDOM.seed(int(sys.argv[6]))
    main()
else:
    PORT, TOKEN, ROW = 0, "", {}
