import ipaddress
import logging
import re
import socketserver
import ssl
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import get_args

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.reporting import pages
from pipeline.reporting.pages import Event, Kind, name_of, send, service_of

NOBODY_LISTENS = "json://user:hunter2@127.0.0.1:9/x"


def test_a_message_carries_subject_body_and_severity(receive):
    receiver = receive()

    assert send(receiver.url, "drift", "temp", "warning") == ("accepted", "")

    (got,) = receiver.got
    assert (got["title"], got["message"], got["type"]) == ("[warning] drift", "temp", "warning")


@pytest.mark.parametrize(
    ("how", "outcome", "why"),
    [
        ("answers 500", "waiting", "refused (HTTP 500)"),
        ("answers 401", "waiting", "refused (HTTP 401)"),
        ("answers 504", "unknown", "refused (HTTP 504)"),
        ("answers 302", "waiting", "refused (HTTP 302)"),
        ("answers 307", "waiting", "refused (HTTP 307)"),
        ("drops", "unknown", "ConnectionError"),
        ("slow", "unknown", "ReadTimeout"),
    ],
)
def test_the_outcome_is_unknown_only_where_the_message_may_have_arrived(receive, how, outcome, why):
    assert send(receive(how).url, "drift", "temp", "warning") == (outcome, why)


@pytest.mark.parametrize("how", ["drops", "answers 500"])
def test_where_logging_is_off_no_message_counts_as_surely_refused(receive, how):
    logging.disable(logging.CRITICAL)
    try:
        found = send(receive(how).url, "drift", "temp", "warning")
    finally:
        logging.disable(logging.NOTSET)

    assert found == ("unknown", "no reason was logged")


def test_a_message_to_several_receivers_of_which_one_refused_may_have_arrived(receive):
    chat = f"mmost://127.0.0.1:{receive('answers 500').server_port}/{'a' * 24}/?to="
    one, both = f"{chat}x", f"{chat}x,y"

    assert send(one, "drift", "temp", "warning")[0] == "waiting"
    assert send(both, "drift", "temp", "warning")[0] == "unknown"


def test_a_message_that_is_too_long_for_a_service_comes_in_parts(receive):
    receiver = receive()

    assert send(receiver.url, "drift", "temp\n" * 10_000, "warning") == ("accepted", "")

    assert len(receiver.got) == 2
    assert "".join(part["message"] for part in receiver.got).count("temp") == 10_000


class Mail(socketserver.StreamRequestHandler):
    """Speaks as much SMTP as a client needs, and does what `how` of its server says."""

    def handle(self):
        self.say("220 hello")
        while line := self.rfile.readline():
            word = line[:4].decode().upper()
            if self.server.how == "drops" and word == "MAIL":
                return
            if word == "DATA":
                self.say("354 go on")
                text = b"".join(iter(self.rfile.readline, b".\r\n"))
                self.server.got.append(text.decode())
                self.say("250 ok" if self.server.how == "takes" else "552 too much")
            elif word == "RCPT" and self.server.how == "knows nobody":
                self.say("550 nobody")
            else:
                self.say("221 bye" if word == "QUIT" else "250 ok")

    def say(self, line):
        self.wfile.write(f"{line}\r\n".encode())


@pytest.fixture
def mail():
    """A server of mail, and its address."""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mail)
    server.daemon_threads, server.got = True, []
    thread = Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    port, who = server.server_address[1], "from=shop@example.com&to=ann@example.com"
    yield server, f"mailto://127.0.0.1:{port}?{who}&mode=insecure&format=text"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("how", "became", "arrived"),
    [
        ("takes", ("accepted", ""), 1),
        ("knows nobody", ("waiting", "SMTPRecipientsRefused"), 0),
        ("takes no more", ("waiting", "SMTPDataError"), 1),
        ("drops", ("unknown", "SMTPServerDisconnected"), 0),
    ],
)
def test_a_mail_is_sent_again_as_a_repeat_only_where_it_may_have_arrived(
    mail, how, became, arrived
):
    server, url = mail
    server.how = how

    assert send(url, "drift of tempé", "temp", "warning") == became
    assert len(server.got) == arrived


class Guarded(socketserver.BaseRequestHandler):
    """Speaks TLS, and does with a request what `how` of its server says."""

    def handle(self):
        if self.server.how == "speaks no TLS":
            self.request.recv(4096)
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        elif self.server.how == "hangs up":
            self.request.recv(4096)
        else:
            try:
                with self.server.tls.wrap_socket(self.request, server_side=True) as secured:
                    head, body = secured.recv(65_536).split(b"\r\n\r\n", 1)
                    size = int(re.search(rb"Content-Length: (\d+)", head)[1])
                    while len(body) < size:  # what is unread when it closes resets the connection
                        body += secured.recv(65_536)
                    self.server.got += 1
                    if self.server.how == "takes":
                        secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            except ssl.SSLError:
                return  # the client does not trust the certificate


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of 127.0.0.1 with its key, signed by itself."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "receiver")])
    here = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([here]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path_factory.mktemp("tls") / "receiver.pem"
    path.write_bytes(key.private_bytes(pem, *plain) + signed.public_bytes(pem))
    return path


@pytest.mark.parametrize(
    ("how", "trusted", "outcome", "arrived"),
    [
        ("takes", True, "accepted", 1),
        ("takes", False, "waiting", 0),
        ("speaks no TLS", True, "waiting", 0),
        ("hangs up", True, "waiting", 0),
        ("drops", True, "unknown", 1),
    ],
)
def test_what_fails_before_tls_is_agreed_on_surely_did_not_arrive(
    certificate, monkeypatch, *, how, trusted, outcome, arrived
):
    if trusted:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Guarded) as server:
        server.daemon_threads, server.how, server.got = True, how, 0
        server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.tls.load_cert_chain(certificate)
        Thread(target=server.serve_forever, args=[0.01], daemon=True).start()

        found, _ = send(f"jsons://127.0.0.1:{server.server_address[1]}", "s", "b", "info")

        server.shutdown()
        assert (found, server.got) == (outcome, arrived)


@pytest.mark.parametrize("url", [NOBODY_LISTENS, "json://user:hunter2@nowhere.invalid/x"])
def test_what_reached_nobody_waits(url):
    outcome, _ = send(url, "drift", "temp", "warning")

    assert outcome == "waiting"


@pytest.mark.parametrize("url", ["slack://hunter2", "bogus://hunter2", "hunter2", ""])
def test_what_is_not_an_address_waits_to_be_corrected(url):
    assert send(url, "drift", "temp", "warning") == ("waiting", "not an address of Apprise")


def test_apprise_logs_no_address(receive, caplog):
    caplog.set_level(logging.DEBUG)

    send(NOBODY_LISTENS, "drift", "temp", "warning")
    for how in ("takes", "answers 500"):
        send(f"{receive(how).url}/hunter2?+token=hunter2", "drift", "temp", "warning")

    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("kind", get_args(Kind))
def test_each_kind_of_event_has_a_severity(kind):
    assert Event(kind, "b", "subject", "body").severity in pages._TYPES


def test_an_address_is_known_by_its_hash_and_its_service():
    assert name_of("json://a") != name_of("json://b")
    assert (service_of("slack://hunter2"), service_of("hunter2")) == ("slack://", "unreadable")


def test_an_event_is_immutable():
    with pytest.raises(AttributeError):
        Event("drift", "b", "subject", "body").subject = "nothing happened"
