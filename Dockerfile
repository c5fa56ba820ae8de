# docker build --target serve -t holdfast-serve .     the API of an exported model, mounted at /model
#   --build-arg GROUP=serve-sklearn                   the same for estimators other than XGBoost's
# docker build --target flows -t holdfast-flows .     a Prefect server or worker with the code and conf/
# docker build --target mlflow -t holdfast-mlflow .   MLflow's tracking server
#
# All run with a read-only root as user 1000, and write in /state and /tmp only: see compose.yaml.

# The workflow `upgrades` builds with the digest that this tag has, and keeps it.
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS tools
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /app
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
# Dependencies change less often than code: a layer of their own.
COPY pyproject.toml uv.lock ./

FROM tools AS build
RUN uv sync --frozen --no-dev --extra postgres --extra otel --no-install-project
COPY README.md LICENSE ./
COPY flows flows
COPY pipeline pipeline
RUN uv sync --frozen --no-dev --extra postgres --extra otel

FROM tools AS build-mlflow
RUN uv sync --frozen --only-group mlflow

FROM tools AS build-serve
ARG GROUP=serve
RUN uv sync --frozen --only-group $GROUP
COPY pipeline pipeline
RUN python -m compileall -q pipeline

FROM ${PYTHON} AS base
RUN useradd --uid 1000 --no-create-home --home-dir /tmp holdfast && install -d -o holdfast /state
WORKDIR /app
COPY --chmod=755 deploy/healthcheck deploy/with-secrets /usr/local/bin/
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1
USER 1000
VOLUME /state
ENTRYPOINT ["with-secrets"]

FROM base AS flows
COPY --from=build /app /app
COPY conf conf
COPY examples examples
# Prefect's server copies its pages before it shows them, by default beside its code.
ENV PREFECT_HOME=/state/prefect PREFECT_SERVER_UI_STATIC_DIRECTORY=/tmp/prefect-ui
# In memory, by default, a server that starts again would end long runs, and never free the slots of dead runs.
ENV PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=prefect.server.concurrency.lease_storage.filesystem
# So does Prefect's server answer while its database starts again, which a run is to outlive.
ENV PREFECT_CLIENT_RETRY_EXTRA_CODES=500
ENV HOLDFAST__TRACKING__FOLDER=/state
ENV DO_NOT_TRACK=1 MLFLOW_DISABLE_TELEMETRY=true PREFECT_SERVER_ANALYTICS_ENABLED=false
CMD ["prefect", "worker", "start", "--pool", "holdfast", "--type", "process"]

FROM base AS mlflow
COPY --from=build-mlflow /app /app
ENV MLFLOW_BACKEND_STORE_URI=sqlite:////state/mlflow.db MLFLOW_ARTIFACTS_DESTINATION=/state/artifacts
ENV MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
ENV DO_NOT_TRACK=1 MLFLOW_DISABLE_TELEMETRY=true
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["healthcheck", "5000", "/health"]
CMD ["mlflow", "server", "--app-name", "basic-auth", "--host", "0.0.0.0", "--port", "5000", "--workers", "1"]

FROM base AS serve
COPY --from=build-serve /app /app
ENV MODEL_DIR=/model HOLDFAST__SERVING__CAPTURES=/state/captures.db
ENV HOLDFAST__SERVING__HOST=0.0.0.0 HOLDFAST__SERVING__PORT=8000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
  CMD ["bash", "-c", "healthcheck $HOLDFAST__SERVING__PORT /ready"]
CMD ["python", "-m", "pipeline.serving"]
