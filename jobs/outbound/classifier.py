"""From vectors of texts to categories: arithmetic only, numpy only; imported when the first text has to be judged.

Default categories are told apart by kernel ridge regression over the vectors of their example phrases. A user's own
category has only its name and description: its share is the posterior of linear discriminant analysis, where it is a
class like the defaults, lifted by OWN_LIFT; what it leaves is divided among the defaults.
Constants are fitted on the train part of tests/load/memos.csv, by `python -m tests.load.categorize --calibrate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]

SHARPNESS = 2.0
"""Of the kernel exp(SHARPNESS * (cosine - 1)) over centred vectors."""
RIDGE = 0.3
TEMPERATURE = 0.08
"""Divides regression scores before softmax, so that confidence is the share of right answers."""
SHRINKAGE = 1e-3
"""Added to the diagonal of the covariance within classes."""
OWN_LIFT = 8.0
"""Log odds given to a user's own category: it then finds three of five of its memos and costs others one in hundred."""


@dataclass(frozen=True, slots=True)
class Classifier:
    """Fitted on examples; `labels` names their classes by index into `slugs`."""

    slugs: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    examples: Array
    """Centred unit vectors, a row each."""
    center: Array
    weights: Array
    means: Array
    precision: Array

    def posterior(self, vectors: Array, owns: Sequence[Array]) -> Array:
        """Probabilities, a row for each vector: the default classes, then one column for each own category.

        An own category is given by the vectors of its phrases.
        """
        kernel = np.exp(SHARPNESS * (self._centred(vectors) @ self.examples.T - 1))
        defaults = softmax(kernel @ self.weights / TEMPERATURE)
        if not owns:
            return defaults
        shares = softmax(self._discriminants(vectors, owns))
        known = len(self.slugs)
        left = shares[:, :known].sum(axis=1, keepdims=True)
        return np.hstack([defaults * left, shares[:, known:]])

    def _discriminants(self, vectors: Array, owns: Sequence[Array]) -> Array:
        means = np.vstack([self.means, *(own.mean(axis=0, keepdims=True) for own in owns)])
        directions = self.precision @ means.T
        scores: Array = vectors @ directions - 0.5 * (means.T * directions).sum(axis=0)
        scores[:, len(self.slugs) :] += OWN_LIFT
        return scores

    def closest(self, vector: Array, label: int) -> tuple[int, float]:
        """Index of the example of a class that is closest to a vector, and their cosine."""
        of_class = np.flatnonzero(self.labels == label)
        cosines = self.examples[of_class] @ self._centred(vector[None, :])[0]
        best = int(cosines.argmax())
        return int(of_class[best]), float(cosines[best])

    def _centred(self, vectors: Array) -> Array:
        return _unit(vectors - self.center)


def fit(slugs: Sequence[str], labels: Sequence[int], vectors: Array) -> Classifier:
    """Learn from examples: a vector and a class (index into `slugs`) each; every class has some."""
    which = np.asarray(labels, dtype=np.int64)
    center = vectors.mean(axis=0)
    examples = _unit(vectors - center)
    kernel = np.exp(SHARPNESS * (examples @ examples.T - 1))
    targets = np.eye(len(slugs))[which] - 1 / len(slugs)
    means = np.stack([vectors[which == label].mean(axis=0) for label in range(len(slugs))])
    within = vectors - means[which]
    covariance = within.T @ within / len(vectors)
    return Classifier(
        slugs=tuple(slugs),
        labels=which,
        examples=examples,
        center=center,
        weights=_solved(kernel + RIDGE * np.eye(len(vectors)), targets),
        means=means,
        precision=_solved(covariance + SHRINKAGE * np.eye(len(center)), np.eye(len(center))),
    )


def _solved(matrix: Array, right: Array) -> Array:
    solution: Array = np.linalg.solve(matrix, right).astype(np.float64)
    return solution


def softmax(scores: Array) -> Array:
    """Rows of scores as probabilities."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Array = powers / powers.sum(axis=1, keepdims=True)
    return shares


def pooled(posteriors: Sequence[Array], weights: Sequence[float]) -> Array:
    """Several opinions on one thing as one: their weighted logarithms added."""
    logs = sum(weight * np.log(np.maximum(p, 1e-12)) for weight, p in zip(weights, posteriors, strict=True))
    shares: Array = softmax(np.asarray(logs)[None, :])[0]
    return shares


def _unit(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: Array = vectors / np.maximum(lengths, 1e-12)
    return units
