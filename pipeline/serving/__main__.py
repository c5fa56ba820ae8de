"""Serve a model: `python -m pipeline.serving conf/<model>.yaml`."""

import sys

from pipeline.serving.server import main

sys.exit(main())
