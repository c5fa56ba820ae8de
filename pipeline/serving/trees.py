"""Predictions of XGBoost's trees without what its Python wrapper adds to each call.

`Booster.inplace_predict` checks its input at every call, which takes longer than the trees of a
few rows, and which the contract has done already. More than a few rows go to XGBoost's C API, to
the bit (https://xgboost.readthedocs.io/en/stable/c.html). A few rows are walked here, through all
trees at once, so that the next nodes of hundreds of trees are fetched together and not one after
the other; their sum differs from XGBoost's in the last bits of a float32.
"""

import ctypes
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from pipeline.columns import Matrix
from pipeline.errors import RegistryError
from pipeline.training.model import Model, Predictions

FEW = 16
"""Most rows that are walked here, which is faster than XGBoost up to about this number."""
_DEEPEST = 16
"""Levels of trees that are walked here; deeper trees are rare, and left to XGBoost."""
_LARGEST = np.float32(88.7)
"""Power of e that a float32 holds; XGBoost stops there as well."""


def _logit(chance: Any) -> Any:
    return np.log(chance / (1 - chance))


def _logistic(margins: Any) -> Any:
    return 1 / (1 + np.exp(np.minimum(-margins, _LARGEST)))


def _softmax(margins: Any) -> Any:
    powers = np.exp(margins - margins.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


# SciPy has these as well; importing it takes as long as loading a model.
_LINKS: dict[str, Callable[[Any], Any]] = {
    "binary:logistic": _logit,
    "multi:softprob": np.asarray,
    "reg:squarederror": np.asarray,
}
"""From the base score to its margin, for the objectives whose trees are walked here."""
_OUTPUTS: dict[str, Callable[[Any], Any]] = {
    "binary:logistic": _logistic,
    "multi:softprob": _softmax,
    "reg:squarederror": np.asarray,
}
"""From margins to predictions."""
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
"""Arguments of XGBoost's C API: predict values, with all trees."""
Predict = Callable[[Matrix], Predictions]
Floats = NDArray[np.float32]
Places = NDArray[np.intp]


def predictor(model: Model) -> Predict:
    """Make the fastest function that predicts encoded rows as the model does.

    It takes matrices of shape (n_rows > 0, n_columns) to predictions of shape (n_rows,), or
    (n_rows, n_classes) of several classes, in one thread, because the other threads of a server
    have requests of their own. Estimators other than XGBoost's, and those of XGBoost that do more
    than add up all of their trees, predict through `Model.predict_encoded`.
    """
    all_seen = len(model.seen) == len(model.classes)  # else columns of others are to be added
    if not (all_seen and _adds_up_all_trees(model.estimator)):
        return model.predict_encoded
    many = _xgboost(model)
    few = _walker(model) or many

    def predict(matrix: Matrix) -> Predictions:
        return model.calibrated(few(matrix) if len(matrix) <= FEW else many(matrix))

    return predict


def _adds_up_all_trees(estimator: Any) -> bool:
    """Whether predictions are the sum of all trees, with NaN alone for what is missing."""
    if not hasattr(estimator, "get_booster") or not np.isnan(estimator.missing):
        return False
    booster = estimator.get_booster()
    kind = json.loads(booster.save_config())["learner"]["gradient_booster"]["name"]
    return kind in {"gbtree", "dart"} and booster.attr("best_iteration") is None


class _Nodes(NamedTuple):
    """Nodes of trees as arrays, shape (n_nodes,); a leaf is its own child.

    A node compares one answer of a row with its bound: an answer below it leads to the first
    child, any other answer and NaN lead to the second.

    Attributes
    ----------
    question : array of int
        Which of a row's answers the node compares; see `_questions`.
    bound : array of float32
        What the answer is compared with.
    value : array of float32
        What a leaf adds to the margin; 0 for other nodes.
    second, first : array of int
        Children.
    """

    question: Places
    bound: Floats
    value: Floats
    second: Places
    first: Places


def _walker(model: Model) -> Predict | None:
    """Walk all trees at once, level by level; None for models that are left to XGBoost."""
    learner = from_json(model.estimator.get_booster().save_raw("json"))["learner"]
    objective, booster = learner["objective"]["name"], learner["gradient_booster"]
    if objective not in _LINKS or booster["name"] != "gbtree" or not booster["model"]["trees"]:
        return None
    if any(int(tree["tree_param"]["size_leaf_vector"]) > 1 for tree in booster["model"]["trees"]):
        return None
    base = np.ravel(json.loads(learner["learner_model_param"]["base_score"]))
    width = max(len(model.classes), 1)
    answers_of, trees = _questions(_by_class(booster["model"]), model)
    roots, nodes = _joined(trees)
    levels = _levels(nodes, roots)
    if len(base) != width or len(trees) % width or levels > _DEEPEST:
        return None
    margin = np.asarray(_LINKS[objective](base), dtype=np.float32)
    margins_of, output = _margins(nodes, roots, levels, width), _OUTPUTS[objective]

    def predict(matrix: Matrix) -> Predictions:
        predicted: Predictions = output(margins_of(answers_of(matrix)) + margin).astype(np.float64)
        return predicted if model.classes else predicted[:, 0]

    return predict


def _by_class(model: dict[str, Any]) -> list[dict[str, Any]]:
    """Trees one class after the other, each in the order in which XGBoost adds them."""
    order = np.argsort(model["tree_info"], kind="stable")
    return [model["trees"][place] for place in order]


def _joined(trees: list[_Nodes]) -> tuple[Places, _Nodes]:
    """Places of all roots, and the nodes of all trees one after the other."""
    sizes = [len(tree.value) for tree in trees]
    roots = np.cumsum([0, *sizes[:-1]])
    moved = [
        tree._replace(second=tree.second + root, first=tree.first + root)
        for tree, root in zip(trees, roots, strict=True)
    ]
    return roots, _Nodes(*(np.concatenate(parts) for parts in zip(*moved, strict=True)))


def _levels(nodes: _Nodes, roots: Places) -> int:
    """Steps after which every walk from a root has reached a leaf; stops above `_DEEPEST`."""
    levels, reached = 0, np.unique(roots)
    while levels <= _DEEPEST:
        below = np.unique([nodes.second[reached], nodes.first[reached]])
        if np.array_equal(below, reached):
            break
        levels, reached = levels + 1, below
    return levels


def _margins(nodes: _Nodes, roots: Places, levels: int, sums: int) -> Callable[[Floats], Floats]:
    """From answers, shape (n_rows, n_questions), to `sums` of leaves, shape (n_rows, sums).

    The trees of each sum stand together.
    """
    # Arrays are indexed by twice the place of a node, so that the place of a child is that of its
    # parent's children plus the outcome of the comparison, without a multiplication per level.
    question, bound = np.repeat(nodes.question, 2), np.repeat(nodes.bound, 2)
    value = np.repeat(nodes.value, 2)
    children = 2 * np.stack([nodes.second, nodes.first], axis=1).ravel()
    starts = 2 * roots

    def margins(answers: Floats) -> Floats:
        n, width = answers.shape
        answers = answers.ravel()
        at = starts
        if n > 1:
            at = np.broadcast_to(at, (n, len(starts)))
            row = np.arange(0, n * width, width)[:, None]
        for _ in range(levels):
            asked = question.take(at)
            if n > 1:
                asked += row
            at = children.take(at + (answers.take(asked) < bound.take(at)))
        # XGBoost adds one tree after the other, and so does cumsum; `sum` adds in another order.
        return value.take(at).reshape(n, sums, -1).cumsum(axis=2)[:, :, -1]

    return margins


def _questions(
    trees: list[dict[str, Any]], model: Model
) -> tuple[Callable[[Matrix], Floats], list[_Nodes]]:
    """Turn the questions of all nodes into numbers: what answers them for rows, and the nodes.

    A node on a number asks for the number, or for its negative where missing values belong to the
    left: `x < t` is false for NaN, and so is `-x < -(next below t)`, which means `x >= t`. A node
    on a set of labels asks whether the row's label is outside of the set; a table answers it for
    each label, and in its last row for missing labels.
    """
    width = len(model.columns)
    tables: dict[int, list[Floats]] = {i: [] for i in range(width)}
    asked = [_label_nodes(tree, model, tables) for tree in trees]
    used = [(i, np.stack(tables[i], axis=1)) for i in range(width) if tables[i]]
    offsets, end = {}, 2 * width
    for i, table in used:
        offsets[i] = end
        end += table.shape[1]
    coded = np.array([i for i, _ in used], dtype=np.intp)

    def answers(matrix: Matrix) -> Floats:
        numbers = matrix.astype(np.float32)  # XGBoost compares in float32 as well
        codes = matrix.take(coded, axis=1)
        places = np.where(np.isnan(codes), -1, codes).astype(np.intp).T
        outside = [table.take(at, axis=0) for (_, table), at in zip(used, places, strict=True)]
        return np.concatenate([numbers, -numbers, *outside], axis=1)

    return answers, [
        _nodes(tree, width, [(node, offsets[column] + place) for node, column, place in own])
        for tree, own in zip(trees, asked, strict=True)
    ]


def _label_nodes(
    tree: dict[str, Any], model: Model, tables: dict[int, list[Floats]]
) -> list[tuple[int, int, int]]:
    """Nodes of a tree that ask for labels: node, column, and place of its answers in the table.

    The answers of each node are appended to the table of its column.
    """
    found = []
    sets = zip(
        tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True
    )
    for node, start, size in sets:
        column = tree["split_indices"][node]
        labels = model.categories[list(model.columns)[column]]
        outside = np.zeros(len(labels) + 1, dtype=np.float32)
        outside[tree["categories"][start : start + size]] = 1
        outside[-1] = not tree["default_left"][node]
        found.append((node, column, len(tables[column])))
        tables[column].append(outside)
    return found


def _nodes(tree: dict[str, Any], width: int, sets: list[tuple[int, int]]) -> _Nodes:
    """Nodes of one tree of `width` columns; `sets` gives the question of each label node."""
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
    return _Nodes(
        question=question,
        bound=bound,
        value=np.where(leaf, condition, np.float32(0)),
        second=np.where(leaf, here, np.where(turned, left, right)),
        first=np.where(leaf, here, np.where(turned, right, left)),
    )


def _xgboost(model: Model) -> Predict:
    """Predict through XGBoost's C API, to the bit as its Python wrapper does."""
    from xgboost import libpath  # noqa: PLC0415 -- slow to import; models of other kinds do without

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
            message = f"XGBoost failed to predict: {library.XGBGetLastError().decode()[:200]}."
            raise RegistryError(message)
        # The buffer belongs to the booster, and this thread's next call overwrites it.
        shape_of = (len(matrix), len(model.classes)) if model.classes else (len(matrix),)
        return np.ctypeslib.as_array(result, shape_of).astype(np.float64)

    return predict
