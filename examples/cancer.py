"""Breast tumours under a microscope (Street, Wolberg and Mangasarian 1993), from scikit-learn.

The table has neither a time nor a key. `conf/cancer.yaml` says how its rows come.
"""

import pandas as pd
from sklearn.datasets import load_breast_cancer


def rows(start: pd.Timestamp | None, end: pd.Timestamp | None) -> pd.DataFrame:
    """All tumours; a table without a time has no windows.

    Returns
    -------
    DataFrame
        One row a tumour, with 30 numeric features; `malignant` is 1 or 0.
    """
    del start, end
    found: pd.DataFrame = load_breast_cancer(as_frame=True).frame
    names = {name: name.replace(" ", "_") for name in found.columns}
    malignant = (found["target"] == 0).astype(float)
    return found.drop(columns="target").rename(columns=names).assign(malignant=malignant)
