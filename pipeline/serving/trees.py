"""Predictions of XGBoost's trees without what its Python wrapper adds to each call.

`Booster.inplace_predict` looks its input over at every call, which for a few rows takes longer
than the trees do, and the contract has done so already. A few rows are predicted by Treelite,
which walks the same trees (https://treelite.readthedocs.io); it differs from XGBoost in the last
bit of a float32. More rows are XGBoost's own, to the bit, through its C API
(https://xgboost.readthedocs.io/en/stable/c.html).
"""

import ctypes
import json
from collections.abc import Callable

import numpy as np
import treelite

from pipeline.columns import Matrix
from pipeline.errors import RegistryError
from pipeline.model import Model, Predictions

FEW = 4
"""Rows that Treelite predicts sooner than XGBoost."""
_VALUES = json.dumps(
    {
        "type": 0,
        "training": False,
        "iteration_begin": 0,
        "iteration_end": 0,
        "missing": float("nan"),
        "strict_shape": False,
        "cache_id": 0,
    }
).encode()
Predict = Callable[[Matrix], Predictions]


def predictor(model: Model) -> Predict:
    """What predicts encoded matrices of shape (n_rows > 0, n_columns), shape (n_rows,).

    One thread predicts: a server's other threads have requests of their own. Any other
    estimator than XGBoost's predicts as `Model.predict_encoded` does.
    """
    if not hasattr(model.estimator, "get_booster"):
        return model.predict_encoded
    few, many = _treelite(model), _xgboost(model)

    def predict(matrix: Matrix) -> Predictions:
        return few(matrix) if len(matrix) <= FEW else many(matrix)

    return predict


def _treelite(model: Model) -> Predict:
    trees = treelite.frontend.from_xgboost(model.estimator.get_booster())

    def predict(matrix: Matrix) -> Predictions:
        # XGBoost compares in float32 as well.
        values = np.asarray(matrix, dtype=np.float32)
        predicted = treelite.gtil.predict(trees, values, nthread=1)
        return np.asarray(predicted.ravel(), dtype=np.float64)

    return predict


def _xgboost(model: Model) -> Predict:
    from xgboost import libpath  # noqa: PLC0415 -- slow to import; a model of it has done so

    library = ctypes.CDLL(libpath.find_lib_path()[0])
    library.XGBGetLastError.restype = ctypes.c_char_p
    booster = model.estimator.get_booster()
    booster.set_param({"nthread": 1})
    width = len(model.columns)

    def predict(matrix: Matrix) -> Predictions:
        assert matrix.flags.c_contiguous and matrix.shape[1] == width  # noqa: S101, PT018
        shape = ctypes.POINTER(ctypes.c_uint64)()
        dimension = ctypes.c_uint64()
        result = ctypes.POINTER(ctypes.c_float)()
        failed = library.XGBoosterPredictFromDense(
            booster.handle,
            b'{"data":[%d,true],"shape":[%d,%d],"typestr":"<f8","version":3}'
            % (matrix.ctypes.data, len(matrix), width),
            _VALUES,
            None,
            ctypes.byref(shape),
            ctypes.byref(dimension),
            ctypes.byref(result),
        )
        if failed:
            message = f"XGBoost must predict. Got: {library.XGBGetLastError().decode()[:200]}."
            raise RegistryError(message)
        # The buffer is the booster's own, and the thread's next call's.
        return np.ctypeslib.as_array(result, (len(matrix),)).astype(np.float64)

    return predict
