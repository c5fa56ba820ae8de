# docker build --target serve -t holdfast-serve .     the API of an exported model, mounted at /model
#   --build-arg GROUP=serve-sklearn                   the same for estimators other than XGBoost's
# docker build --target flows -t holdfast-flows .     a Prefect worker with the code and conf/

FROM python:3.11-slim AS tools
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /app
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
# Dependencies change less often than code: a layer of their own.
COPY pyproject.toml uv.lock ./

FROM tools AS build
RUN uv sync --frozen --no-dev --no-install-project
COPY README.md LICENSE ./
COPY flows flows
COPY pipeline pipeline
RUN uv sync --frozen --no-dev

FROM tools AS build-serve
ARG GROUP=serve
RUN uv sync --frozen --only-group $GROUP
COPY pipeline pipeline
RUN python -m compileall -q pipeline

FROM python:3.11-slim AS base
RUN useradd --uid 1000 --create-home holdfast && install -d -o holdfast /app /state
WORKDIR /app
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1
USER holdfast

FROM base AS flows
COPY --from=build /app /app
COPY conf conf
COPY examples examples
ENV HOLDFAST__TRACKING__FOLDER=/state
VOLUME /state
CMD ["prefect", "worker", "start", "--pool", "holdfast", "--type", "process"]

FROM base AS serve
COPY --from=build-serve /app /app
ENV MODEL_DIR=/model HOLDFAST__SERVING__CAPTURES=/state/captures.db
ENV HOLDFAST__SERVING__HOST=0.0.0.0 HOLDFAST__SERVING__PORT=8000
VOLUME /state
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
  CMD ["python", "-c", "import os, urllib.request as http; http.urlopen(f'http://127.0.0.1:{os.environ[\"HOLDFAST__SERVING__PORT\"]}/ready', timeout=2)"]
CMD ["python", "-m", "pipeline.serving"]
