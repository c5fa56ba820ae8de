"""Predictions of XGBoost's trees without what its Python wrapper adds to each call.

`Booster.inplace_predict` looks its input over at every call, which for a few rows takes longer
than the trees do, and the contract has done so already. More than a few rows are XGBoost's own,
to the bit, through its C API (https://xgboost.readthedocs.io/en/stable/c.html). A few are walked
here, through all trees at once, so that the next nodes of hundreds of trees are fetched together
and not one after the other; their sum differs from XGBoost's in the last bits of a float32.
"""

import ctypes
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from pipeline.columns import Matrix
from pipeline.errors import RegistryError
from pipeline.training.model import Model, Predictions

FEW = 16
"""Rows that are walked here sooner than by XGBoost."""
_DEEPEST = 16
"""Levels of trees that are walked here; deeper ones are rare, and XGBoost's."""
_LINKS: dict[str, Callable[[Any], Any]] = {"binary:logistic": logit, "reg:squarederror": float}
"""From the base score to its margin, for the objectives whose trees are walked here."""
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
    many = _xgboost(model)
    few = _walker(model) or many

    def predict(matrix: Matrix) -> Predictions:
        return few(matrix) if len(matrix) <= FEW else many(matrix)

    return predict


def _walker(model: Model) -> Predict | None:
    """What walks all trees at once, a level at a time; None for a model that is not of its kind.

    A node compares one entry of a row's questions with its bound: below it lies the first child,
    elsewhere, and for NaN, the second.
    """
    learner = json.loads(model.estimator.get_booster().save_raw("json"))["learner"]
    objective, booster = learner["objective"]["name"], learner["gradient_booster"]
    if objective not in _LINKS or booster["name"] != "gbtree" or not booster["model"]["trees"]:
        return None
    base = np.ravel(json.loads(learner["learner_model_param"]["base_score"]))
    ask, trees = _questions(booster["model"]["trees"], model)
    sizes = [len(tree["value"]) for tree in trees]
    starts = np.cumsum([0, *sizes[:-1]])
    question, bound, value = (
        np.concatenate([tree[part] for tree in trees]) for part in ("question", "bound", "value")
    )
    second, first = (
        np.concatenate([tree[part] + at for tree, at in zip(trees, starts, strict=True)])
        for part in ("second", "first")
    )
    children = np.stack([second, first], axis=1).ravel()
    levels = _levels(children, starts)
    if len(base) != 1 or levels > _DEEPEST:
        return None
    margin, logistic = np.float32(_LINKS[objective](base[0])), objective == "binary:logistic"
    # What is indexed by a node is indexed by the place of its children instead, and needs no
    # doubling at each level.
    question, bound, value, children = (
        np.repeat(question, 2),
        np.repeat(bound, 2),
        np.repeat(value, 2),
        2 * children,
    )

    def predict(matrix: Matrix) -> Predictions:
        answers = ask(matrix)
        n, width = answers.shape
        answers = answers.ravel()
        at = 2 * starts
        if n > 1:
            at = np.broadcast_to(at, (n, len(starts)))
            row = np.arange(0, n * width, width)[:, None]
        for _ in range(levels):
            asked = question.take(at)
            if n > 1:
                asked += row
            at = children.take(at + (answers.take(asked) < bound.take(at)))
        # XGBoost adds one tree after the other; so does this, as `sum` does not.
        margins = value.take(at).reshape(n, -1).cumsum(axis=1)[:, -1] + margin
        return (expit(margins) if logistic else margins).astype(np.float64)

    return predict


_Tree = dict[str, NDArray[Any]]


def _questions(
    trees: list[dict[str, Any]], model: Model
) -> tuple[Callable[[Matrix], NDArray[np.float32]], list[_Tree]]:
    """What nodes ask of rows, and the trees' nodes.

    A number asks for itself, or for its negative where what is missing belongs to the left:
    `x < t` is false for NaN, and so is `-x < -(next below t)`, which is `x >= t`. A set of labels
    asks whether the row's is outside of it, which a table answers for each label, the last for
    what is missing.
    """
    width = len(model.columns)
    tables: dict[int, list[NDArray[np.float32]]] = {i: [] for i in range(width)}
    asked: list[list[tuple[int, int, int]]] = []  # of each tree: node, column, place in its table
    for tree in trees:
        own = []
        sets = zip(
            tree["categories_nodes"],
            tree["categories_segments"],
            tree["categories_sizes"],
            strict=True,
        )
        for node, start, size in sets:
            column = tree["split_indices"][node]
            labels = model.categories[list(model.columns)[column]]
            outside = np.zeros(len(labels) + 1, dtype=np.float32)
            outside[tree["categories"][start : start + size]] = 1
            outside[-1] = not tree["default_left"][node]
            own.append((node, column, len(tables[column])))
            tables[column].append(outside)
        asked.append(own)
    used = [(i, np.stack(tables[i], axis=1)) for i in range(width) if tables[i]]
    offsets, end = {}, 2 * width
    for i, table in used:
        offsets[i] = end
        end += table.shape[1]

    coded = np.array([i for i, _ in used], dtype=np.intp)

    def ask(matrix: Matrix) -> NDArray[np.float32]:
        numbers = matrix.astype(np.float32)  # XGBoost compares in float32 as well
        codes = matrix.take(coded, axis=1)
        places = np.where(np.isnan(codes), -1, codes).astype(np.intp).T
        outside = [table.take(at, axis=0) for (_, table), at in zip(used, places, strict=True)]
        return np.concatenate([numbers, -numbers, *outside], axis=1)

    return ask, [
        _nodes(tree, width, [(node, offsets[column] + place) for node, column, place in own])
        for tree, own in zip(trees, asked, strict=True)
    ]


def _nodes(tree: dict[str, Any], width: int, sets: list[tuple[int, int]]) -> _Tree:
    """Nodes of one tree as arrays; a leaf is its own child."""
    left, right = (np.array(tree[f"{side}_children"], dtype=np.intp) for side in ("left", "right"))
    condition = np.array(tree["split_conditions"], dtype=np.float32)
    question = np.array(tree["split_indices"], dtype=np.intp)
    leaf, bound = left < 0, condition.copy()
    turned = np.array(tree["default_left"], dtype=bool) & ~leaf
    turned[[node for node, _ in sets]] = False
    question[turned] += width
    bound[turned] = -np.nextafter(condition[turned], np.float32(-np.inf))
    for node, place in sets:
        question[node], bound[node] = place, 0.5
    question[leaf] = 0
    here = np.arange(len(left))
    return {
        "question": question,
        "bound": bound,
        "value": np.where(leaf, condition, np.float32(0)),
        "first": np.where(leaf, here, np.where(turned, right, left)),
        "second": np.where(leaf, here, np.where(turned, left, right)),
    }


def _levels(children: NDArray[np.intp], roots: NDArray[np.intp]) -> int:
    """Steps after which no walk from a root moves on."""
    levels, nodes = 0, np.unique(roots)
    while levels <= _DEEPEST:
        below = np.unique(children.reshape(-1, 2)[nodes])
        if np.array_equal(below, nodes):
            break
        levels, nodes = levels + 1, below
    return levels


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
