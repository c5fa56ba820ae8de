import sys

import pytest

from benchmarks.harness.processes import ChildError
from benchmarks.harness.servers import Server, free_port

pytestmark = pytest.mark.integration

SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.do_GET()
        self.wfile.write(b"answer")
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_a_server_is_measured_alone_and_stopped():
    port = free_port()
    with Server([sys.executable, "-c", SERVER, str(port)], port, ready="/") as server:
        answer = server.ask("/", b"{}")
        assert answer == b"answer"
        assert server.cpu() > 0
        rss = sum(one.memory_info().rss for one in server.family()) / 2**20
        assert server.memory() == pytest.approx(rss, rel=0.2)
        process = server.process

    assert process.poll() is not None


def test_a_server_that_does_not_start_is_reported_with_what_it_said():
    script = "import sys; sys.exit('the port is taken')"

    with pytest.raises(ChildError, match=r"did not start\.\nthe port is taken"):
        Server([sys.executable, "-c", script], free_port(), ready="/")
