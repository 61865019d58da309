"""Letters from their templates: jinja2 fills in, MJML makes HTML for mail programs of it; a text part says the same."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from mjml import mjml2html

from handlers.rules.money import dollars

FOLDER = Path(__file__).parent / "templates"
CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Rendered:
    """The parts of a letter that its template makes."""

    subject: str
    text: str
    html: str


class Templates:
    """The templates of a process, read once each."""

    def __init__(self) -> None:
        # Only the text parts and subjects (.txt) are no markup: there is nothing to escape in them.
        self._environment = Environment(
            loader=FileSystemLoader(FOLDER),
            autoescape=select_autoescape(enabled_extensions=("mjml",), default=False),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters["usd"] = usd

    def render(self, name: str, **facts: Any) -> Rendered:
        """Fill in a template; what people wrote is shown as text, never read as markup. Raises for a fact missing."""
        parts = (f"{name}.subject.txt", f"{name}.txt", f"{name}.mjml")
        subject, text, markup = (self._environment.get_template(part).render(facts) for part in parts)
        return Rendered(" ".join(subject.split()), text.strip() + "\n", mjml2html(markup))


def usd(amount: Decimal) -> str:
    """Dollars and cents as people write them: `$1,234.50`."""
    cents = amount.quantize(CENT)
    sign = "-" if cents < 0 else ""
    whole, _, fraction = dollars(abs(cents)).partition(".")
    return f"{sign}${int(whole):,}.{fraction}"
