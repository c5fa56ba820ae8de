"""`python -m pipeline.serving` serves an exported model without the command line's packages."""

import sys

from pipeline.errors import PipelineError
from pipeline.redaction import redacted
from pipeline.serving.server import serve

try:
    serve(None)
except PipelineError as error:
    sys.exit(redacted(f"ERROR: {error}"))
