"""What pushes say, by kind and language, and the data that travels with them. Pure: facts in, words out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

FALLBACK = "en"
TITLE_BYTES = 200
BODY_BYTES = 800
VALUE_BYTES = 200
"""Bounds of the parts (UTF-8 bytes): FCM and APNs take 4096 for all of them together, escapes included."""

RETRACTED = "retracted"
"""Kind of the push that silently replaces one whose effect a reorg took back."""

_LOSS = "yield_update.loss"


@dataclass(frozen=True, slots=True)
class Words:
    """Title and body of one kind; `hidden` is the body for those who hide amounts on lock screens."""

    title: str
    body: str
    hidden: str


@dataclass(frozen=True, slots=True)
class Look:
    """How Android shows a kind: icon of the app's resources, colour or None for the app's own."""

    icon: str
    colour: str | None = None


LOOKS: Mapping[str, Look] = {"spending_alert": Look("spending_alert", "#FF6B6B")}

DATA: Mapping[str, tuple[str, ...]] = {
    "spending_alert": ("category", "amount", "transaction_id"),
    "yield_update": ("daily_yield", "total_yield"),
    "goal_milestone": ("goal_id", "progress"),
    "anomaly_alert": ("transaction_id", "anomaly_type"),
    "achievement_unlocked": ("code", "tier"),
    "transaction_received": ("transaction_id", "amount"),
    "delegate_spend": ("transaction_id", "bucket", "amount"),
    "bucket_shared": ("bucket_id",),
    "friend_request": ("friend_id",),
    "friend_accepted": ("friend_id",),
    "challenge_invited": ("challenge_id",),
    "challenge_settled": ("challenge_id", "rank"),
    RETRACTED: ("transaction_id",),
}
"""Facts that travel as data beside `type`, `event_id` and `seq`."""

TEXTS: Mapping[str, Mapping[str, Words]] = {
    "en": {
        "spending_alert": Words("💰 {title}", "{message}", "Open Expendi to see the figures."),
        "yield_update": Words(
            "📈 Portfolio Update", "Your investments earned ${daily_yield} today!", "Your investments earned today!"
        ),
        _LOSS: Words(
            "📈 Portfolio Update", "Your investments lost ${daily_yield} today.", "Your investments lost value today."
        ),
        "goal_milestone": Words(
            "🎯 Goal Milestone!",
            "You're {progress}% towards your {goal_name}!",
            "You're {progress}% towards your {goal_name}!",
        ),
        "anomaly_alert": Words("⚠️ Unusual activity", "{message}", "Open Expendi to see what looks unusual."),
        "achievement_unlocked": Words("🏆 Achievement unlocked!", "{message}", "{title}"),
        "transaction_received": Words("💸 Money received", "You received {amount}.", "You received money."),
        "delegate_spend": Words(
            "👤 A delegate spent", "A delegate spent {amount} from {bucket}.", "A delegate spent from {bucket}."
        ),
        "bucket_shared": Words(
            "👥 Shared money", "You were added to someone's bucket, or removed.", "There is news of a shared bucket."
        ),
        "friend_request": Words("👋 Friend request", "{name} wants to be friends.", "Someone wants to be friends."),
        "friend_accepted": Words("🤝 New friend", "You and {name} are friends now.", "You have a new friend."),
        "challenge_invited": Words(
            "🏁 Challenge", "{name} invites you to “{challenge}”.", "You are invited to a challenge."
        ),
        "challenge_settled": Words(
            "🏁 Challenge settled",
            "“{challenge}”: you are number {rank} of {count}.",
            "A challenge of yours is settled.",
        ),
        RETRACTED: Words(
            "↩️ Taken back", "The chain took back what this was about.", "The chain took back what this was about."
        ),
    },
    "de": {
        "spending_alert": Words("💰 {title}", "{message}", "Öffne Expendi, um die Beträge zu sehen."),
        "yield_update": Words(
            "📈 Dein Portfolio",
            "Deine Anlagen haben heute {daily_yield} $ verdient!",
            "Deine Anlagen haben heute verdient!",
        ),
        _LOSS: Words(
            "📈 Dein Portfolio",
            "Deine Anlagen haben heute {daily_yield} $ verloren.",
            "Deine Anlagen haben heute an Wert verloren.",
        ),
        "goal_milestone": Words(
            "🎯 Etappenziel!",
            "{progress} % von {goal_name} sind geschafft!",
            "{progress} % von {goal_name} sind geschafft!",
        ),
        "anomaly_alert": Words("⚠️ Ungewöhnliche Aktivität", "{message}", "Öffne Expendi, um es dir anzusehen."),
        "achievement_unlocked": Words("🏆 Erfolg freigeschaltet!", "{message}", "{title}"),
        "transaction_received": Words("💸 Geld erhalten", "Du hast {amount} erhalten.", "Du hast Geld erhalten."),
        "delegate_spend": Words(
            "👤 Ausgabe durch Bevollmächtigte",
            "{amount} wurden aus {bucket} ausgegeben.",
            "Aus {bucket} wurde etwas ausgegeben.",
        ),
        "bucket_shared": Words(
            "👥 Gemeinsames Geld",
            "Du darfst aus einem fremden Topf ausgeben oder nicht mehr.",
            "Es gibt Neues zu einem gemeinsamen Topf.",
        ),
        "friend_request": Words(
            "👋 Freundschaftsanfrage",
            "{name} möchte mit dir befreundet sein.",
            "Jemand möchte mit dir befreundet sein.",
        ),
        "friend_accepted": Words(
            "🤝 Neue Freundschaft", "Du und {name} seid jetzt befreundet.", "Ihr seid jetzt befreundet."
        ),
        "challenge_invited": Words(
            "🏁 Challenge", "{name} lädt dich zu „{challenge}“ ein.", "Du bist zu einer Challenge eingeladen."
        ),
        "challenge_settled": Words(
            "🏁 Challenge entschieden",
            "„{challenge}“: Du bist Nummer {rank} von {count}.",
            "Eine deiner Challenges ist entschieden.",
        ),
        RETRACTED: Words(
            "↩️ Zurückgenommen",
            "Die Chain hat zurückgenommen, worum es hier ging.",
            "Die Chain hat zurückgenommen, worum es hier ging.",
        ),
    },
}


@dataclass(frozen=True, slots=True)
class Text:
    """What a phone shows."""

    title: str
    body: str


def text(kind: str, facts: Mapping[str, object], *, locale: str, hide_amounts: bool) -> Text | None:
    """Title and body in the device's language, else in English; None when there is nothing to say.

    Raises KeyError for a kind or fact that is missing.
    """
    shown = {name: str(value) for name, value in facts.items()}
    if kind == "yield_update":
        earned = _cents(shown["daily_yield"])
        if earned == 0:
            return None
        shown["daily_yield"] = f"{abs(earned):,}"
        kind = kind if earned > 0 else _LOSS
    language = locale.replace("_", "-").partition("-")[0].lower()
    words = TEXTS.get(language, TEXTS[FALLBACK])[kind]
    body = words.hidden if hide_amounts else words.body
    return Text(clip(words.title.format_map(shown), TITLE_BYTES), clip(body.format_map(shown), BODY_BYTES))


def data(kind: str, facts: Mapping[str, object], *, event_id: str, seq: int) -> dict[str, str]:
    """Data of a push: every value a string, `event_id` and `seq` always there."""
    known = {name: clip(str(facts[name]), VALUE_BYTES) for name in DATA[kind] if facts.get(name) is not None}
    return {"type": kind, **known, "event_id": event_id, "seq": str(seq)}


def clip(text: str, size: int) -> str:
    """The text when it fits into so many UTF-8 bytes, else as much as fits before an ellipsis; no character is cut.

    Control characters are left out: nobody sees them, and each takes six bytes in JSON.
    """
    text = "".join(char for char in text if char >= " ")
    raw = text.encode()
    return text if len(raw) <= size else raw[: size - len("…".encode())].decode(errors="ignore") + "…"


def _cents(amount: str) -> Decimal:
    try:
        return Decimal(amount).quantize(Decimal("0.01"))
    except InvalidOperation:
        raise KeyError(f"daily_yield is no amount: {amount!r}") from None
