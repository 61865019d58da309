from __future__ import annotations

from handlers.catalogue import PAGE, page
from handlers.events import CATALOGUE


def test_page_of_events_is_what_the_catalogue_says() -> None:
    assert PAGE.read_text() == page(), "stale: run `python -m handlers.catalogue`"


def test_every_event_is_on_the_page() -> None:
    text = PAGE.read_text()
    assert [event.name for event in CATALOGUE if f"## `{event.name}`" not in text] == []
