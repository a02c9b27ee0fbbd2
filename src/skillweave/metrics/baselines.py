"""Simple baselines of scikit-learn to stand beside a model's figures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from skillweave.data.values import commonest

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


def _characters(train: Sequence[object]) -> TfidfVectorizer:
    """TF-IDF of characters and pairs of characters, for so many training samples."""
    least = min(2, len(train))
    return TfidfVectorizer(analyzer="char", ngram_range=(1, 2), min_df=least, sublinear_tf=True)


def _text_classifier(train: Sequence[str]) -> Pipeline:
    return make_pipeline(_characters(train), LogisticRegression(C=10, max_iter=200))


def classify_texts(train: Sequence[str], labels: Sequence[str], test: Sequence[str]) -> list[str]:
    """Predicted labels of `test`: logistic regression on TF-IDF of characters and pairs of
    characters."""
    return list(_text_classifier(train).fit(list(train), list(labels)).predict(list(test)))


def label_texts(
    train: Sequence[str], labels_NC: NDArray[np.bool_], test: Sequence[str]
) -> NDArray[np.float64]:
    """Probabilities [N, C] of each class by itself: a logistic regression for each."""
    features = _characters(train)
    train_NV, test_NV = features.fit_transform(list(train)), features.transform(list(test))
    model = OneVsRestClassifier(LogisticRegression(C=10, max_iter=200))
    return np.asarray(model.fit(train_NV, labels_NC.astype(int)).predict_proba(test_NV))


def score_texts(
    train: Sequence[str], scores: Sequence[float], test: Sequence[str]
) -> NDArray[np.float64]:
    """Predicted numbers [N]: ridge regression on TF-IDF of characters and pairs of characters."""
    model = make_pipeline(_characters(train), Ridge())
    return np.asarray(model.fit(list(train), list(scores)).predict(list(test)))


def score_pairs(
    train: Sequence[tuple[str, str]], scores: Sequence[float], test: Sequence[tuple[str, str]]
) -> NDArray[np.float64]:
    """Predicted numbers [N] of pairs of texts: linear regression on the cosine of their TF-IDF
    vectors of characters and pairs of characters."""
    features = _characters(train).fit([text for pair in train for text in pair])

    def cosines(pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        first, second = (features.transform(list(side)) for side in zip(*pairs, strict=True))
        return np.asarray(first.multiply(second).sum(1)).reshape(-1, 1)

    return LinearRegression().fit(cosines(train), list(scores)).predict(cosines(test))


def classify_vectors(train_ND: NDArray, labels: Sequence[str], test_ND: NDArray) -> list[str]:
    """Predicted labels of `test_ND`: logistic regression on standardised features."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=200))
    return list(model.fit(train_ND, list(labels)).predict(test_ND))


def nearest(train_ND: NDArray, test_ND: NDArray) -> NDArray[np.int64]:
    """The row of `train_ND` that is nearest to each of `test_ND`, [N], by the Euclidean
    distance."""
    squares = (train_ND**2).sum(1) - 2 * test_ND @ train_ND.T  # less what each test row adds
    return squares.argmin(1)


def retrieve_by_regression(
    train: Sequence[str], train_ND: NDArray, queries: Sequence[str], items_PD: NDArray
) -> NDArray[np.float64]:
    """Similarities [Q, P] of texts and items: ridge regression from TF-IDF of the training texts to
    the standardised features of their items, then the cosine of what is expected and each item."""
    features, scale = _characters(train), StandardScaler()
    model = Ridge().fit(features.fit_transform(list(train)), scale.fit_transform(train_ND))
    expected_QD = np.asarray(model.predict(features.transform(list(queries))))
    return _unit(expected_QD) @ _unit(scale.transform(items_PD)).T


def _unit(rows: NDArray) -> NDArray[np.float64]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def retrieve_texts(queries: Sequence[str], items: Sequence[str]) -> NDArray[np.float64]:
    """Cosine similarities [Q, P] of TF-IDF vectors of words, and of the parts of identifiers;
    document frequencies are the pool's own. No training data is used."""
    features = TfidfVectorizer(analyzer=code_words, sublinear_tf=True)
    items_PV = features.fit_transform(list(items))
    return np.asarray((features.transform(list(queries)) @ items_PV.T).todense())


def commonest_tags(
    train: Sequence[tuple[Sequence[str], Sequence[str]]], test: Sequence[Sequence[str]]
) -> list[list[str]]:
    """A tag for each word: the one that the word has most often in the training samples (words,
    tags), or the commonest of all for an unknown word."""
    by_word: dict[str, Counter[str]] = {}
    for words, tags in train:
        for word, tag in zip(words, tags, strict=True):
            by_word.setdefault(word, Counter())[tag] += 1
    every = sum(by_word.values(), Counter[str]())
    known = {word: commonest(counts) for word, counts in by_word.items()}
    otherwise = commonest(every)
    return [[known.get(word, otherwise) for word in words] for words in test]
