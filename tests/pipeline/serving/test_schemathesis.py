"""The API keeps what its OpenAPI document promises, as tried by Schemathesis."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import positive_data_acceptance

from pipeline.config import Serving
from pipeline.serving.app import create_app
from pipeline.serving.capturing import Captures
from pipeline.serving.follower import ServingState, load_exported

pytestmark = pytest.mark.slow


@pytest.fixture
def operations(bundle, tmp_path):
    """Every operation of the OpenAPI document."""
    state = ServingState()
    load_exported(bundle, state)
    with Captures(tmp_path / "captures.db") as captures:
        app = create_app(state=state, captures=captures, options=Serving())
        schema = schemathesis.openapi.from_asgi("/openapi.json", app)
        yield [found.ok() for found in schema.get_all_operations()]


bounded = settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
# The schemas of these routes do not hold the contract; test_fuzz tries what they accept.
LOOSE = {"/invocations", "/v2/models/flights/infer"}


def try_many(operation, mode, *, without=()):
    @bounded
    @given(case=operation.as_strategy(generation_mode=mode))
    def answers(case):
        if mode is GenerationMode.POSITIVE and case.path == "/predict":
            case.body.pop("keys", None)  # no schema can say that there are as many as rows
        if mode is GenerationMode.POSITIVE and case.path == "/labels":  # nor that labels agree
            case.body["labels"] = list(
                {label["key"]: label for label in case.body["labels"]}.values()
            )
        case.call_and_validate(excluded_checks=[*without])

    answers()


def test_every_answer_is_as_the_document_says(operations):
    assert len(operations) > 10
    for operation in operations:
        without = [positive_data_acceptance] if operation.path in LOOSE else []
        try_many(operation, GenerationMode.POSITIVE, without=without)


def test_requests_that_the_document_forbids_are_refused(operations):
    posts = [operation for operation in operations if operation.method == "post"]
    assert len(posts) == 4
    for operation in posts:
        try_many(operation, GenerationMode.NEGATIVE)
