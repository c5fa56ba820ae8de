"""What the API's own document promises, tried by a tool that knows nothing else of it."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import positive_data_acceptance

from pipeline.config import Serving
from pipeline.serving.app import create_app
from pipeline.serving.capturing import Captures
from pipeline.serving.follower import ServingState, exported


@pytest.fixture
def operations(bundle, tmp_path):
    """Each route and method that the document names."""
    champion = ServingState()
    exported(bundle, champion)
    with Captures(tmp_path / "captures.db") as captures:
        app = create_app(champion=champion, captures=captures, options=Serving())
        schema = schemathesis.openapi.from_asgi("/openapi.json", app)
        yield [found.ok() for found in schema.get_all_operations()]


bounded = settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
# Their schemas say less than the contract does: what they accept is tried with the other protocols.
LOOSE = {"/invocations", "/v2/models/flights/infer"}


def try_many(operation, mode, *, without=()):
    @bounded
    @given(case=operation.as_strategy(generation_mode=mode))
    def answers(case):
        if mode is GenerationMode.POSITIVE and case.path == "/predict":
            case.body.pop("keys", None)  # no schema can say that they are as many as rows
        case.call_and_validate(excluded_checks=[*without])

    answers()


def test_every_answer_is_as_the_document_says(operations):
    assert len(operations) > 10
    for operation in operations:
        without = [positive_data_acceptance] if operation.path in LOOSE else []
        try_many(operation, GenerationMode.POSITIVE, without=without)


def test_nothing_that_the_document_forbids_is_accepted(operations):
    posts = [one for one in operations if one.method == "post"]
    assert len(posts) == 4
    for operation in posts:
        try_many(operation, GenerationMode.NEGATIVE)
