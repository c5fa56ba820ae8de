import shutil
from dataclasses import replace

import httpx
import numpy as np
import pytest

from pipeline.serving.follower import load_exported
from pipeline.training import parity
from pipeline.training.calibration import Calibration
from pipeline.training.seals import seal

CALIBRATIONS = {
    "sigmoid": Calibration("sigmoid", [([0.4], [-0.7])]),
    "isotonic": Calibration("isotonic", [([-3.0, 0.0, 4.0], [0.05, 0.3, 0.6])]),
}


@pytest.fixture(params=list(CALIBRATIONS))
def calibrated(request, state, model, frame, bundle):
    """A served model whose chances are moved."""
    calibrated = replace(model, calibration=CALIBRATIONS[request.param])
    shutil.rmtree(bundle / "model")
    calibrated.save(bundle / "model")
    parity.make(calibrated, frame).save(bundle / "golden")
    seal(bundle)
    load_exported(bundle, state)
    return calibrated


def test_every_protocol_sends_calibrated_chances(calibrated, model, serve, frame):
    rows = frame.dropna().head(20)
    records, expected = rows.to_dict("records"), calibrated.predict(rows)
    tensors = [
        {
            "name": name,
            "shape": [20],
            "datatype": "FP64" if rows[name].dtype.kind == "f" else "BYTES",
            "data": rows[name].tolist(),
        }
        for name in rows
    ]
    with serve() as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        native = client.post("/predict", json={"rows": records}).json()
        mlflow = client.post("/invocations", json={"instances": records}).json()
        infer = client.post("/v2/models/flights/infer", json={"inputs": tensors}).json()
        # A few rows are predicted by other code.
        single = [client.post("/predict", json={"rows": [row]}).json() for row in records]

    assert np.abs(expected - model.predict(rows)).max() > 0.1
    assert native["predictions"] == expected.tolist()
    assert mlflow["predictions"] == expected.tolist()
    assert infer["outputs"][0]["data"] == expected.tolist()
    alone = [one["predictions"][0] for one in single]
    assert alone == pytest.approx(expected.tolist(), rel=1e-5)
