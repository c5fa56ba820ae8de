from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR
from threading import Thread

import pytest

from pipeline.config import FileSource
from pipeline.data import places, sources
from pipeline.data.places import find
from pipeline.errors import DataError, UnavailableError

ROWS = b"at,x\n2024-01-01,1\n2024-01-02,2\n"
LISTING = b'<a href="a.csv">a</a> <a href="b.csv">b</a>'


class _Answering(BaseHTTPRequestHandler):
    """A path begins with what the server does: a status or a word, perhaps after `GET`."""

    def do_GET(self):
        mood, _, name = self.path[1:].partition("/")
        body = ROWS if name.endswith(".csv") else LISTING
        if mood == "200" and set(name) & set("*[%"):
            mood = "404"
        if mood.startswith("GET"):
            mood = mood[3:] if self.command == "GET" and body is ROWS else "200"
        self.close_connection = True
        if mood == "gone":
            self.connection.shutdown(SHUT_RDWR)
            return
        if mood == "silent":
            self.rfile.read(1)  # until whoever asked gives up
            return
        halves = mood in {"cut", "stuck"}
        self.send_response(200 if halves else int(mood))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:10] if halves else body)
        if mood == "stuck":
            self.rfile.read(1)

    do_HEAD = do_GET  # noqa: N815 -- the name in http.server

    def log_message(self, *args):
        pass


@contextmanager
def serving():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answering) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def server():
    with serving() as address:
        yield address


@pytest.fixture(scope="module")
def down():
    """Where no server is any more."""
    with serving() as address:
        pass
    return address


def read(path):
    return sources.read(FileSource(kind="file", path=path), time="at")


TROUBLES = ["500", "503", "429", "gone", "cut", "GET503", "GETgone", "GETcut"]
NAMES = ["a.csv", "*.csv", "[ab].csv"]


@pytest.mark.parametrize("name", NAMES)
def test_files_of_a_web_server_are_read(server, name):
    assert len(read(f"{server}/200/{name}")) == (2 if name == "a.csv" else 4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "mood", ["500", "503", "429", "gone", "cut", "GET503", "GETgone", "GETcut"]
)
def test_a_web_server_that_has_trouble_may_answer_later(server, mood, name):
    with pytest.raises(UnavailableError, match=r"cannot be read \((HTTP \d|Server|Response)"):
        read(f"{server}/{mood}/{name}")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["silent/{}", "GETsilent/{}", "GETstuck/{}", "silent/{}.zip"])
def test_a_web_server_that_falls_silent_is_not_waited_for(server, form, name, monkeypatch):
    monkeypatch.setattr(places, "_SILENCE", 0.1)
    address = f"{server}/{form.format(name)}"

    with pytest.raises(UnavailableError, match=r"cannot be read \(Timeout on reading"):
        read(f"zip://*.csv::{address}" if address.endswith(".zip") else address)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mood", ["401", "403", "GET403"])
def test_a_web_server_that_refuses_its_files_is_quoted(server, mood, name):
    with pytest.raises(DataError, match=r"cannot be read \(HTTP 40[13]\)"):
        read(f"{server}/{mood}/{name}")


def test_a_file_that_a_web_server_does_not_have_is_missing(server):
    with pytest.raises(DataError, match="No file matches"):
        find(f"{server}/404/a.csv")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["{}/{}", "zip://*.csv::{}/{}.zip", "ftp:{}/{}"])
def test_a_server_that_is_down_may_answer_later(down, form, name):
    address = form.format(down.removeprefix("http:") if form.startswith("ftp") else down, name)

    with pytest.raises(UnavailableError, match="Check its server and its path"):
        find(address)


def write(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(ROWS)


@pytest.mark.parametrize("pattern", ["", "/*", "/**"])
def test_neither_a_folder_nor_a_wildcard_means_hidden_names(tmp_path, pattern):
    write(tmp_path, "a.csv", "part/b.csv", ".trash/c.csv", "_temporary/0/d.csv", "part/._b.csv")

    assert len(read(f"{tmp_path}{pattern}")) == 2 * 2


@pytest.mark.parametrize("pattern", [".trash/*", "*/.[a-z]*.csv", "_*/*.csv", "_*.csv"])
def test_hidden_names_are_read_where_a_pattern_asks_for_them(tmp_path, pattern):
    write(tmp_path, "a.csv", "_b.csv", "_old/c.csv", ".trash/d.csv", "part/.e.csv")

    assert len(read(f"{tmp_path}/{pattern}")) == 2


def test_a_wildcard_in_a_hidden_folder_reads_what_is_in_it(tmp_path):
    write(tmp_path, ".cache/_x/a.csv", ".cache/_x/_b.csv")

    assert len(read(f"{tmp_path}/.cache/_x/*.csv")) == 2 * 2
