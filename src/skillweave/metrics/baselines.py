"""Simple baselines of scikit-learn to stand beside a model's figures."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+|[\u4e00-\u9fff]+")
_HAN = re.compile(r"[\u4e00-\u9fff]")


def code_words(text: str) -> list[str]:
    """Lower-case words of code or prose: identifiers split on snake and camel case, Han runs into
    characters and pairs."""
    words: list[str] = []
    for match in _WORD.findall(text):
        if _HAN.match(match):
            words += [*match, *(match[i : i + 2] for i in range(len(match) - 1))]
        else:
            words.append(match.lower())
    return words


def classify_texts(train: Sequence[str], labels: Sequence[str], test: Sequence[str]) -> list[str]:
    """Predicted labels of `test`: logistic regression on TF-IDF of characters and pairs of
    characters."""
    least = min(2, len(train))
    features = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), min_df=least, sublinear_tf=True)
    model = make_pipeline(features, LogisticRegression(C=10, max_iter=200))
    return list(model.fit(list(train), list(labels)).predict(list(test)))


def retrieve_code(queries: Sequence[str], items: Sequence[str]) -> NDArray[np.float64]:
    """Cosine similarities [Q, P] of TF-IDF vectors; document frequencies are the pool's own. No
    training data is used."""
    features = TfidfVectorizer(analyzer=code_words, sublinear_tf=True)
    items_PV = features.fit_transform(list(items))
    return np.asarray((features.transform(list(queries)) @ items_PV.T).todense())
