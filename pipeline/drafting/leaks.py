"""Columns that give the target away: alone, together, or by being null.

Each score is out of sample: a model of one column is fitted on older rows and scored on newer ones.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from pipeline.columns import Floats, Matrix, as_number

_MOST: Final = 20_000
"""Rows that are enough to tell a score of 0.99 from a lower one."""
_OLDER: Final = 0.7
NEARLY: Final = 0.99
"""AUC, or explained variance, of a column that predicts the target nearly alone."""
_WORSE: Final = 5.0
"""How many times the error grows without a column that the others cannot replace."""
_ROUNDS: Final = 60
"""Trees of a boosted model; of three or more classes about twice as many in all."""
_ALL, _HALF = 0.99, 0.5
"""Share of rows without a value in one class, and at most in the other."""


def encoded(values: pd.Series, target: pd.Series, older: pd.Series, classes: int = 2) -> Floats:
    """A column as numbers: labels become the mean target of their older rows.

    Of three or more classes they become the share of each, shape (n_rows, n_classes).
    """
    if pd.api.types.is_numeric_dtype(values.dtype) or values.dtype.kind == "M":
        return as_number(values).to_numpy(dtype=np.float64)
    if classes > 2:  # noqa: PLR2004 -- the mean of 0 and 1 is a share
        of_each = [(target == place).astype("float64") for place in range(classes)]
        return np.column_stack([encoded(values, one, older) for one in of_each])
    known, mean = target[older], float(target[older].mean())
    groups = known.groupby(values[older])
    # A label of few rows is drawn towards the mean, or names would seem to predict.
    means = (groups.sum() + 10 * mean) / (groups.count() + 10)
    texts = values.map(means).to_numpy(dtype=np.float64)
    return np.where(values.isna(), np.nan, np.where(np.isnan(texts), mean, texts))


class Judge:
    """Scores columns by what a small model makes of them on newer rows.

    Parameters
    ----------
    frame : DataFrame
        Typed rows, oldest first.
    target : Series of float64
        The target of each row.
    task : str
        ``classification`` or ``regression``.
    classes : int
        How many classes a classification has.
    """

    def __init__(self, frame: pd.DataFrame, target: pd.Series, task: str, classes: int = 2) -> None:
        labelled = np.flatnonzero(target.notna())
        step = max(1, -(-len(labelled) // _MOST))
        places = labelled[::step]
        self.frame = frame.iloc[places].reset_index(drop=True)
        self.target = target.iloc[places].reset_index(drop=True)
        self.task, self.classes = task, classes
        self.older = pd.Series(np.arange(len(places)) < len(places) * _OLDER)
        self.columns: dict[str, Floats] = {}
        sides = self.target[self.older], self.target[~self.older]
        self.able = all(len(side.unique()) > 1 for side in sides)

    def alone(self, name: str) -> float:
        """Score of a column alone: AUC, or explained variance; nan where it cannot be judged."""
        if not self.able:
            return np.nan
        kind = DecisionTreeClassifier if self.task == "classification" else DecisionTreeRegressor
        fewest = max(5, len(self.frame) // 500)
        return self._score(kind(min_samples_leaf=fewest, random_state=0), self._matrix([name]))

    def together(self, names: Sequence[str]) -> float:
        """Score of columns together, by the better of a boosted and a linear model."""
        if not self.able or not names:
            return np.nan
        matrix = self._matrix(names)
        if self.task == "classification":
            rounds = max(_ROUNDS // 6, 2 * _ROUNDS // self.classes)  # a tree for each class
            model = HistGradientBoostingClassifier(max_iter=rounds, random_state=0)
            return self._score(model, matrix)
        boosted = self._score(
            HistGradientBoostingRegressor(max_iter=_ROUNDS, random_state=0), matrix
        )
        return max(boosted, self.linear(names))

    def linear(self, names: Sequence[str]) -> float:
        """Explained variance of the target by a sum of columns; nan where it cannot be judged."""
        if not self.able or not names:
            return np.nan
        return self._score(LinearRegression(), np.nan_to_num(self._matrix(names)))

    def null_of_one_class(self, name: str) -> tuple[int, float] | None:
        """The class whose rows lack a column nearly always, and the share that does; else None."""
        if self.task != "classification":
            return None
        shares = self.frame[name].isna().groupby(self.target).mean()
        for kind in range(self.classes):
            others = shares.drop(kind, errors="ignore").max() if len(shares) > 1 else 1
            if shares.get(kind, 0) >= _ALL and others <= _HALF:
                return kind, float(shares[kind])
        return None

    def _matrix(self, names: Sequence[str]) -> Matrix:
        for name in names:
            if name not in self.columns:
                given = self.frame[name], self.target, self.older
                self.columns[name] = encoded(*given, self.classes)
        return np.column_stack([self.columns[name] for name in names])

    def _score(self, model: object, matrix: Matrix) -> float:
        older = self.older.to_numpy()
        truth = self.target.to_numpy()
        model.fit(matrix[older], truth[older])  # type: ignore[attr-defined]
        if self.task == "classification":
            chances = model.predict_proba(matrix[~older])  # type: ignore[attr-defined]
            return _auc(truth[~older], chances, model.classes_)  # type: ignore[attr-defined]
        return float(r2_score(truth[~older], model.predict(matrix[~older])))  # type: ignore[attr-defined]


def _auc(truth: Floats, chances: Matrix, classes: Floats) -> float:
    """AUC or, of three or more classes, the mean over those that occur, each against the rest."""
    if len(classes) == 2:  # noqa: PLR2004 -- one says all about the other
        classes, chances = classes[1:], chances[:, 1:]
    found = [
        roc_auc_score(truth == place, chances[:, i])
        for i, place in enumerate(classes)
        if 0 < (truth == place).mean() < 1
    ]
    return float(np.mean(found)) if found else float("nan")


def joint_leaks(judge: Judge, names: Sequence[str]) -> dict[str, str]:
    """Columns that give the target away only beside others, each with its reason.

    A score near 1 may belong to an easy problem. It is a leak where one column, which the others
    cannot replace, is what makes it: without it the error is several times as large.
    """
    found: dict[str, str] = {}
    if judge.task == "regression":
        found |= _parts_of_a_sum(judge, names)
    left = [name for name in names if name not in found]
    while left and (whole := judge.together(left)) > NEARLY:
        scores = {
            name: judge.together([n for n in left if n != name]) for name in _leading(judge, left)
        }
        name = min(scores, key=lambda one: scores[one])
        if not _is_worse(whole, scores[name]):
            break
        found[name] = (
            f"predicts the target nearly alone beside other columns ({_named(judge)} {whole:.4f} "
            f"with it, {scores[name]:.4f} without)"
        )
        left.remove(name)
    return found


def _parts_of_a_sum(judge: Judge, names: Sequence[str]) -> dict[str, str]:
    numbers = [n for n in names if pd.api.types.is_numeric_dtype(judge.frame[n].dtype)]
    whole = judge.linear(numbers)
    if not 1 - whole < 1e-6:  # noqa: PLR2004 -- a sum is exact but for rounding
        return {}
    scores = {name: judge.linear([n for n in numbers if n != name]) for name in numbers}
    parts = [name for name in numbers if _is_worse(whole, scores[name])]
    return {name: f"the target is a sum of {' and '.join(parts)}" for name in parts}


def _is_worse(whole: float, without: float) -> bool:
    return 1 - without > _WORSE * max(1 - whole, 1e-3)


def _leading(judge: Judge, names: Sequence[str]) -> list[str]:
    """The three columns that predict best alone, among which the leak must be."""
    return sorted(names, key=judge.alone, reverse=True)[:3]


def _named(judge: Judge) -> str:
    return "AUC" if judge.task == "classification" else "R2"
