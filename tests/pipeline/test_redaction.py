import io
import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import redaction
from pipeline.config import Settings
from pipeline.redaction import RedactedRecord, redacted, remember

SIGNS = "abcXYZ019-._~!$'()*+,;=:%/@#?"
"""Signs of user names and passwords, also such as an address should hold in another spelling."""
secrets = st.text(SIGNS, min_size=1, max_size=12).map(lambda text: f"s3{text}cret")
queries = st.text("abcXYZ019-._~!$'()*+,;:%/@", min_size=1, max_size=12).map(lambda t: f"s3{t}cret")
many = settings(max_examples=200, deadline=None, derandomize=True)
S = "s3cret"


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch):
    monkeypatch.setattr(redaction, "_known", set())
    monkeypatch.setattr(redaction, "_any_known", redaction._any_known)


@many
@given(secret=secrets, query=queries, around=st.sampled_from(["{}", "'{}'", '("{}")', "a {}: b"]))
def test_no_address_keeps_its_secrets(secret, query, around):
    for scheme in ("http", "postgresql+pg8000", "s3", "mailto"):
        address = f"{scheme}://me:{secret}@host:5000/path?part=1&token={query}"
        text = redacted(around.format(address))

        assert secret not in text
        assert query not in text
        assert f"{scheme}://" in text


@many
@given(secret=secrets, around=st.sampled_from(["{}", "'{}'", '("{}")', "a {}: b", "x={}"]))
def test_an_address_without_its_scheme_keeps_its_user_only(secret, around):
    text = redacted(around.format(f"me:{secret}@host:5432/db"))

    assert secret not in text
    assert "me:***@host:5432/db" in text


SPELLINGS = [
    f"http://me:{S}@host",
    f"http://{S}@host",
    f"http://me:p@{S}/x#y?z@host/path",
    f"http://me:%40{S}%2F@host/path",
    f"redis://:{S}@host",
    f"me:{S}@host",
    f"no proxy at me:{S}/#@10.0.0.1:3128",
    f"me@corp.example:{S}@host",
    f"postgresql://host/db?password={S}",
    f"postgresql://host/db?sslpassword={S}&sslmode=require",
    f"https://host/x?a=1&sig={S}%3D&se=2026",
    f"https://host/x?X-Amz-Credential=AKIA%2F{S}&X-Amz-Signature={S}",
    f"/x?X-Amz-Signature={S}",
    f"sig={S}&se=2026-01-01",
    f"X-Amz-Credential={S}/20260101/eu/s3/aws4_request",
    f"AWS4-HMAC-SHA256 Credential={S}/x, SignedHeaders=host, Signature={S}",
    f"jdbc:sqlserver://host;user=me;password={S};encrypt=true",
    f"Server=db;Uid=me;Pwd={S};Timeout=5",
    f"Driver=x;PWD={{a;{S}}};Server=db",
    f"AccountName=me;AccountKey={S}==;EndpointSuffix=core.windows.net",
    f"SharedAccessKeyName=root;SharedAccessKey={S}",
    f"SharedAccessSignature=sv=2020&sig={S}",
    f"host=db user=me password={S} sslmode=require",
    f"host=db password = '{S} {S}' user=me",
    f"Authorization: Bearer {S}",
    f"authorization: bearer {S}",
    f"> Authorization: Basic {S}==",
    f"Proxy-Authorization: Digest username=me, response={S}",
    f"{{'Authorization': 'Bearer {S}', 'Host': 'a'}}",
    f"[(b'host', b'a'), (b'authorization', b'Bearer {S}')]",
    f"sent Bearer {S} to the host",
    f"X-Api-Key: {S}",
    f"Cookie: a=b; session={S}",
    f"HTTP_PROXY=http://me:{S}@proxy:3128",
    f"PREFECT_API_KEY={S}",
    f"PREFECT_API_AUTH_STRING=admin:{S}",
    f"PREFECT_API_AUTH_STRING='admin:{S}'",
    f"MLFLOW_TRACKING_PASSWORD={S}",
    f"AWS_SECRET_ACCESS_KEY: {S}",
    f"AWS_SESSION_TOKEN={S}",
    f"HOLDFAST__SERVING__TOKEN={S}",
    f"Settings(token='{S}', port=1)",
    f'{{"token": "{S}", "port": 1}}',
    f'{{"text": "{{\\"api_key\\": \\"{S}\\"}}"}}',
    f'{{"secret":"a\\"{S}"}}',
    f"{{'clientSecret': '{S}'}}",
    f"accessToken={S}",
    f"serving:\n  token: {S}\n  port: 1",
    f'serving:\n  token: "{S}"\n',
    f"psql --password {S} --host db",
    f"curl --api-token={S}",
    f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{S}",
]


@pytest.mark.parametrize("text", SPELLINGS)
@pytest.mark.parametrize("around", ["{}", "ERROR: it failed: {}", "'{}'", "({})", "{}\nand more"])
def test_a_secret_is_left_out_in_every_spelling(text, around):
    found = redacted(around.format(text))

    assert S not in found
    assert "***" in found


@pytest.mark.parametrize("text", SPELLINGS)
def test_a_text_may_be_redacted_again(text):
    assert redacted(redacted(text)) == redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////tmp/state/mlflow.db",
        "https://host:5000/path#part",
        "write to admin@example.org",
        "mailto:admin@example.org",
        "git@github.com:org/repo.git",
        "python:3.12@sha256:0123abcd",
        "2026-01-01T10:00:00@node-1",
        "what? a=b & c=d",
        "The token is missing or wrong. Send Authorization: Bearer <token>.",
        "Every request needs a bearer token.",
        "Basic authentication is not supported.",
        "serving.token: must be printable ASCII without blanks, or unset",
        "FATAL: password authentication failed for user me",
        "max_tokens=5, token_type=bearer, password_length=8, passed=3, n_signals=2",
        "key=id, primary_key=id, sort_key: at",
        '{"key": "id", "author": "me", "design": "x"}',
        "HOLDFAST__SERVING__TOKEN__FILE=/run/secrets/api-token",
        "HOLDFAST__SERVING__TOKEN asks every request for a bearer token",
        "if token == expected: continue",
        "plan: must be one of {free, pro}. Got 'team'.",
        "amount 12:30, share 0.5: moved; 3/4 @ 2",
        "batch 2026-03-02 alarmed: p=0.001",
    ],
)
def test_a_text_without_secrets_stays(text):
    assert redacted(text) == text


def test_what_is_known_to_be_secret_is_left_out_wherever_it_stands():
    slack = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/"
    database = 'postgresql://me:a b"c<d>e9@host/db'
    proxy = {"HTTPS_PROXY": "http://me:pr0xy%40word@proxy:3128", "MY_API_KEY": "k3y-of-mine"}
    remember([slack, "Tok3n/with+signs=", "postgres", database], {**proxy, "PATH": "/usr/b1n/x1"})

    text = (
        "no answer for A1BRTD4JD from TIiajkdnlazkcOXrIdevi7FQ; Tok3n/with+signs=, and as "
        'Tok3n%2Fwith%2Bsigns%3D; failed for a b"c<d>e9 and k3y-of-mine, pr0xy@word, pr0xy%40word.'
    )
    assert redacted(text) == (
        "no answer for *** from ***; ***, and as ***; failed for *** and ***, ***, ***."
    )
    assert redacted("postgres at host has /usr/b1n/x1") == "postgres at host has /usr/b1n/x1"
    assert redacted("xk3y-of-mine9") == "xk3y-of-mine9"


def test_settings_remember_their_secrets_and_those_of_the_environment(make_file, monkeypatch):
    monkeypatch.setenv("HOLDFAST__SERVING__TOKEN", "T0ken-of-the-API")
    monkeypatch.setenv("HOLDFAST__ALERTS__URLS", '["json://host/p4th-of-alerts"]')
    monkeypatch.setenv("HOLDFAST__TRACKING__URI", "http://me:p4ss-of-uri@host")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:p4ss-of-prefect")

    Settings.load(make_file)

    for secret in ("T0ken-of-the-API", "p4th-of-alerts", "p4ss-of-uri", "p4ss-of-prefect"):
        assert redacted(f"got {secret} here") == "got *** here"


@pytest.fixture
def make_file(tmp_path):
    features = {"amount": {"type": "numeric"}}
    train = {"kind": "file", "path": "rows.parquet"}
    data = {"train": train, "key": "id", "time": "at", "target": "churned", "features": features}
    file = tmp_path / "shop.yaml"
    file.write_text(json.dumps({"name": "shop", "task": "classification", "data": data}))
    return file


def test_a_log_record_is_redacted_with_its_traceback():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.Logger("foreign")  # noqa: LOG001 -- of no tree, so that only one handler sees it
    logger.addHandler(handler)
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(RedactedRecord)
    try:
        error = OSError("http://me:s3cret@host/?token=s3cret")
        logger.error("asked %s", "ftp://me:s3cret@host", exc_info=error)
    finally:
        logging.setLogRecordFactory(before)

    assert "s3cret" not in stream.getvalue()
    assert "asked ftp://***@host" in stream.getvalue()
    assert "OSError: http://***@host/?token=***" in stream.getvalue()


def test_the_path_of_a_database_is_no_secret_and_stays_in_commands():
    remember(["sqlite:////srv/m0del-7/rows-7.db", "postgresql://me:hunter2-x@host/wareh0use-7"], {})
    command = "holdfast rollback /srv/m0del-7/shop.yaml; see rows-7.db and wareh0use-7"

    assert redacted(command) == command
    assert redacted("no entry for hunter2-x") == "no entry for ***"


def test_the_folder_of_the_shell_is_no_password():
    remember([], {"PWD": "/srv/m0dels-8", "DB_PWD": "hunter3-x"})

    assert redacted("/srv/m0dels-8/shop.yaml: hunter3-x") == "/srv/m0dels-8/shop.yaml: ***"
