import pickle

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import FileSource, SqlSource
from pipeline.config import Tracking as Section
from pipeline.data.databases import read_query
from pipeline.data.declared import Declared
from pipeline.data.files import Window, read_files
from pipeline.errors import PipelineError, RegistryError, first_line
from pipeline.registry.versions import Registry

SIGNS = "abcXYZ019-._~!$'()*+,;=:%/@#?"
"""Signs of user names and passwords, also such as an address should hold in another spelling."""
secrets = st.text(SIGNS, min_size=1, max_size=12).map(lambda text: f"s3{text}cret")
many = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(autouse=True)
def _no_retries(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@many
@given(secret=secrets, lead=st.integers(0, 250))
def test_a_message_is_redacted_before_it_is_cut(secret, lead):
    error = OSError(f"{'x' * lead} http://me:{secret}@host\nmore")

    assert secret[:4] not in first_line(error)
    assert len(first_line(error)) <= 200


def test_an_error_of_ours_is_redacted_and_survives_pickling():
    error = pickle.loads(pickle.dumps(RegistryError("no answer from http://me:s3cret@host.")))  # noqa: S301 -- made here

    assert str(error) == "no answer from http://***@host."
    assert isinstance(error, PipelineError)


@settings(many, max_examples=5)
@given(secret=st.text("abcXYZ019-._~", min_size=4, max_size=9).map(lambda t: f"s3{t}cret"))
def test_no_error_of_a_foreign_library_shows_a_secret(tmp_path_factory, secret):
    folder = tmp_path_factory.mktemp("state")
    window, declared = Window(None, None, None), Declared(frozenset(), frozenset(), None, {})
    web = f"http://me:{secret}@127.0.0.1:9/?token={secret}"
    database = f"postgresql+pg8000://me:{secret}@127.0.0.1:9/db"
    odd = f"nothing://me:{secret}@host"
    files = FileSource(kind="file", path=f"{web}&x=.csv")
    calls = [lambda: list(read_files(files, window, declared))]
    for uri in (web, odd):
        registry = Registry("flights", Section(folder=folder, uri=uri))
        calls.append(registry.versions)
    for uri in (web, database, odd):
        source = SqlSource(kind="sql", url=uri, query="SELECT 1")
        calls.append(lambda source=source: list(read_query(source, window, declared)))

    for call in calls:
        with pytest.raises(PipelineError) as caught:
            call()
        assert secret not in repr(caught.value)
