"""Text that people or contracts wrote, made safe to show: it may be hostile."""

from __future__ import annotations

import unicodedata

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories that are not text to a reader: control, bidi and other format characters, surrogates."""


def plain(text: str) -> str:
    """One line of normalised text: no control or bidi characters, single spaces, nothing around it. Not capped."""
    whole = unicodedata.normalize("NFC", text)
    kept = "".join(" " if char.isspace() else char for char in whole if char.isspace() or not _is_hidden(char))
    return " ".join(kept.split())


def _is_hidden(char: str) -> bool:
    return unicodedata.category(char) in _HIDDEN


def masked_email(address: str) -> str:
    """An e-mail address as its owner recognises it: `a***@example.com`."""
    local, _, domain = address.rpartition("@")
    return f"{local[:1]}***@{domain}"
