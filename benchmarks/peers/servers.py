"""Model servers as tutorials build them: `servers.py fit|api|echo FOLDER [PORT]`.

`fit` trains on rows.parquet and saves a scikit-learn pipeline as an MLflow model; `api` serves
it with FastAPI, pydantic and a DataFrame; `echo` sends back what it receives.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any


def fit(folder: Path) -> None:
    import mlflow
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler
    from xgboost import XGBClassifier

    rows = pd.read_parquet(folder / "rows.parquet")
    target = rows.pop("target")
    labels = [name for name in map(str, rows) if name.startswith("c")]
    numbers = [name for name in map(str, rows) if name.startswith("x")]
    steps = ColumnTransformer(
        [
            ("numbers", StandardScaler(), numbers),
            ("labels", OneHotEncoder(handle_unknown="ignore"), labels),
        ]
    )
    forest = XGBClassifier(**json.loads((folder / "params.json").read_text()))
    model = Pipeline([("columns", steps), ("model", forest)]).fit(rows, target)
    mlflow.sklearn.save_model(
        model,
        folder / "mlflow",
        serialization_format="cloudpickle",
        pip_requirements=["mlflow"],  # or MLflow finds the uv.lock of the folder it runs in
        pyfunc_predict_fn="predict_proba",
        signature=mlflow.models.infer_signature(rows.head(), model.predict_proba(rows.head())),
    )


def api(folder: Path, port: int) -> None:
    from typing import Literal

    import mlflow
    import pandas as pd
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel, create_model

    columns = json.loads((folder / "columns.json").read_text())
    fields: dict[str, Any] = {
        name: (Literal[tuple(labels)] if labels else float, ...) for name, labels in columns.items()
    }
    row_model = create_model("Row", **fields)

    class Rows(BaseModel):
        rows: list[row_model]

    model = mlflow.sklearn.load_model(folder / "mlflow")
    app = FastAPI()

    @app.post("/predict")
    def predict(request: Rows) -> dict[str, list[float]]:
        frame = pd.DataFrame([row.model_dump() for row in request.rows])
        return {"predictions": model.predict_proba(frame)[:, 1].tolist()}

    uvicorn.run(app, port=port, access_log=False, log_level="warning")


def echo(port: int) -> None:
    import uvicorn

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        parts = [await receive()]
        while parts[-1].get("more_body"):
            parts.append(await receive())
        body = json.dumps(json.loads(b"".join(part["body"] for part in parts) or b"{}")).encode()
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    uvicorn.run(app, port=port, access_log=False, log_level="warning", lifespan="off")


if __name__ == "__main__":
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    what, folder = sys.argv[1], Path(sys.argv[2])
    if what == "fit":
        fit(folder)
    elif what == "api":
        api(folder, int(sys.argv[3]))
    else:
        echo(int(sys.argv[3]))
