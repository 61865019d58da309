from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import pytest

from handlers.rules.prompts import Candidate, Item, make_item
from jobs.outbound import embeddings
from jobs.outbound.embeddings import EXAMPLES, Guess, LocalModel, load_examples, phrases_of, weights_of
from tests.jobs.models import DEFAULTS, ID, embedder, judge
from tests.load.categorize import part_of, rows

PETS = Candidate("pets", None, "Pets", "Vet, pet food, toys")


def item(memo: str = "", label: str = "", bucket: str = "") -> Item:
    return make_item(memo=memo, label=label, bucket=bucket, usd=None)


def guess(one: Item, candidates: Sequence[Candidate] = DEFAULTS) -> Guess:
    (found,) = judge().judge([one], candidates)
    assert found is not None
    return found


def test_examples_are_the_train_part_of_the_labelled_file() -> None:
    train = {slug: {row.memo for row in rows("train") if row.category == slug} for slug in load_examples()}
    assert {slug: set(phrases) for slug, phrases in load_examples().items()} == train
    assert set(train) == {candidate.slug for candidate in DEFAULTS}
    held_out = {row.memo.casefold() for row in rows("held-out")}
    assert not held_out & {phrase.casefold() for phrases in train.values() for phrase in phrases}


def test_nobody_chooses_which_memos_are_held_out() -> None:
    memos = [row.memo for row in rows()]
    assert len({" ".join(memo.casefold().split()) for memo in memos}) == len(memos) >= 300
    assert [row.part for row in rows()] == [part_of(memo) for memo in memos]
    assert len(rows("held-out")) > 300


def test_their_vectors_are_kept_beside_them() -> None:
    phrases = [phrase for of_slug in load_examples().values() for phrase in of_slug]
    kept = embeddings._kept_vectors(EXAMPLES.with_suffix(".npz"), phrases)
    assert kept is not None, "run `python -m jobs.outbound.embeddings`"
    assert len(kept) == len(phrases)
    for index in range(0, len(phrases), 97):
        made = embedder().vectors([phrases[index]])[phrases[index]]
        assert float(made @ kept[index]) > 0.999


def test_held_out_memos_are_judged_right() -> None:
    held_out = rows("held-out")[::4]
    found = judge().judge([item(row.memo) for row in held_out], DEFAULTS)
    right = sum(g is not None and g.category_id == ID[row.category] for g, row in zip(found, held_out, strict=True))
    assert right / len(held_out) >= 0.80  # of a quarter of them; `make bench-categorize` reports on all


def test_a_guess_says_how_sure_it_is_and_why() -> None:
    found = guess(item("two large pizzas"))
    assert found.category_id == ID["food"]
    assert found.confidence >= Decimal("0.90")
    assert found.confidence.as_tuple().exponent == -2
    assert found.reasoning.startswith("memo is closest to '")
    assert "two large" not in found.reasoning  # memos are sealed, reasons are not
    assert guess(item("qwzx vrtk")).confidence < Decimal("0.60")


def test_where_there_is_nothing_to_read_there_is_no_guess() -> None:
    assert judge().judge([item(), item("pizza")], DEFAULTS)[0] is None
    assert judge().judge([], DEFAULTS) == []


def test_labels_and_buckets_count_less_than_a_memo() -> None:
    assert guess(item(bucket="Groceries")).category_id == ID["food"]
    assert "bucket's name" in guess(item(bucket="Groceries")).reasoning
    assert guess(item(label="Pharmacy")).category_id == ID["health"]
    assert guess(item("monthly gym membership", bucket="Groceries")).category_id == ID["health"]
    sure, alone = guess(item("groceries")).confidence, guess(item(bucket="gas and tolls"))
    assert alone.confidence < sure
    assert weights_of(["memo", "bucket"]) == {"memo": 1.0, "bucket": 0.3}
    assert weights_of(["bucket"]) == pytest.approx({"bucket": 0.7})
    assert weights_of(["label", "bucket"]) == pytest.approx({"label": 0.7, "bucket": 0.525})


def test_a_users_own_category_needs_no_examples() -> None:
    vet = item("vet visit for the dog")
    assert guess(vet).category_id == ID["health"]
    found = guess(vet, [*DEFAULTS, PETS])
    assert found.category_id == "pets"
    assert found.confidence <= Decimal("0.85")
    assert found.reasoning == "memo is close to your category 'Pets'"
    for memo in ("leash and collar", "puppy training class", "cat litter", "hamster cage", "kennel for the weekend"):
        assert guess(item(memo), [*DEFAULTS, PETS]).category_id == "pets"
    others = ["two large pizzas", "train to Lyon", "electricity bill", "cinema tickets", "dentist", "buy bitcoin"]
    with_pets = [guess(item(memo), [*DEFAULTS, PETS]).category_id for memo in others]
    assert with_pets == [guess(item(memo)).category_id for memo in others]


def test_only_candidates_are_chosen() -> None:
    without_food = [candidate for candidate in DEFAULTS if candidate.slug != "food"]
    assert guess(item("two large pizzas"), without_food).category_id != ID["food"]
    assert guess(item("two large pizzas"), [PETS]).category_id == "pets"


def test_phrases_of_a_category_are_its_name_and_what_its_description_lists() -> None:
    assert phrases_of(PETS) == ["Pets", "Pets: Vet, pet food, toys", "Vet", "pet food", "toys"]
    assert phrases_of(Candidate("k", None, "Kids", "")) == ["Kids"]


def test_vectors_are_kept_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "KEPT", 3)
    known = embedder()
    known.vectors(["one", "two", "three", "four", "two"])
    assert list(known._kept) == ["two", "three", "four"]
    known.vectors(["two", "five"])
    assert list(known._kept) == ["four", "two", "five"]
    assert known.vectors(["two"])["two"] is known.vectors(["two"])["two"]
    assert known.vectors([]) == {}


async def test_the_model_loads_when_first_asked_and_leaves_the_loop_free(tmp_path: Path) -> None:
    few = tmp_path / "few.toml"
    few.write_text('food = ["pizza", "lunch", "groceries"]\ntransport = ["taxi", "train ticket", "fuel"]\n')
    model = LocalModel(few)
    try:
        assert await model.judge([item()], DEFAULTS) == [None]
        assert await model.judge([item("pizza")], []) == [None]
        assert model._loaded is None
        ticks = 0
        asked = asyncio.ensure_future(model.judge([item("pizza slice")] * 3, DEFAULTS[:2]))
        while not asked.done():
            await asyncio.wait([asked], timeout=0.001)
            ticks += 1
        assert ticks > 3
        assert {found.category_id for found in await asked if found} == {ID["food"]}
        assert os.environ["OMP_NUM_THREADS"] == "1"
    finally:
        model.close()
