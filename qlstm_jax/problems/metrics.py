"""Figures of classification."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def classification(confusion: np.ndarray, label_names: Sequence[str]) -> dict[str, Any]:
    """Returns accuracy, macro-F1 and figures by class.

    Args:
        confusion: (C, C) counts, rows the true labels, columns the predicted ones.
        label_names: C names.

    Returns:
        accuracy; macro_f1, the plain mean of the classes' F1 = 2 · precision · recall / (precision + recall), a
        figure without a denominator being 0; classes: precision, recall, f1 and support of each.
    """
    right, true, said = np.diag(confusion).astype(float), confusion.sum(1), confusion.sum(0)
    precision = np.divide(right, said, out=np.zeros_like(right), where=said > 0)
    recall = np.divide(right, true, out=np.zeros_like(right), where=true > 0)
    f1 = np.divide(2 * right, true + said, out=np.zeros_like(right), where=true + said > 0)
    classes = {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for name, p, r, f, n in zip(label_names, precision, recall, f1, true, strict=True)
    }
    return {
        "accuracy": float(right.sum() / confusion.sum()),
        "macro_f1": float(f1.mean()),
        "examples": int(confusion.sum()),
        "classes": classes,
        "confusion_matrix": confusion.tolist(),
    }
