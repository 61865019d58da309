"""Every Redis channel, key and room name, in one place, so that publisher and subscriber can't disagree."""

from __future__ import annotations

from uuid import UUID

REVOCATIONS = "revocations"
"""Channel: wakes web processes after a session was revoked; the truth is in PostgreSQL."""

JOBS_WAKE = "jobs:wake"
"""Channel: wakes workers after jobs were enqueued, so that they need not poll quickly."""

BLOCKS_PATTERN = "chain:*:blocks"

USER_CHANNEL_PREFIX = "user:"


def user_channel(address: str) -> str:
    """Channel that carries one user's finished event texts."""
    return USER_CHANNEL_PREFIX + address


def blocks_channel(chain_id: int) -> str:
    """Channel that carries each committed or reverted block of a chain."""
    return f"chain:{chain_id}:blocks"


def user_room(address: str) -> str:
    """Socket.IO room of every socket of a user."""
    return f"user_{address}"


def notifications_room(address: str) -> str:
    """Second name of the same stream, kept for clients of the plan."""
    return f"notifications_{address}"


def acks(address: str) -> str:
    """Sorted set of what each of a user's sessions has shown (seq by session id)."""
    return f"acks:{address}"


def queue_name(queue: str) -> str:
    """Key of arq's sorted set for one of our queues (`quick` or `slow`)."""
    return f"arq:queue:{queue}"


def rate_limit(scope: str, subject: str) -> str:
    """Key of one GCRA cell: who (`subject`) may call what (`scope`)."""
    return f"limit:{scope}:{subject}"


QUESTIONS = "questions"
"""List of what web processes ask of quick workers."""


def answer(name: str) -> str:
    """List that the answer to one question comes by; `name` is drawn by who asks."""
    return f"answer:{name}"


def ai_answer(name: str) -> str:
    """Key of what a language model answered; `name` hashes everything that was asked, and who asked."""
    return f"ai:{name}"


def analytics_answer(address: str, version: int, name: str) -> str:
    """Key of a finished analytics answer of one user, as of a persisted version of theirs."""
    return f"answer:{address}:{version}:{name}"


def leaderboard(challenge: UUID, part: str) -> str:
    """Key of one part of a challenge's standings; the braces keep them on one node of a cluster."""
    return f"leaderboard:{{{challenge}}}:{part}"


LEADERBOARDS_DUE = "leaderboards:due"
"""Sorted set of challenges with participants who wait to be told where they are, by when the first of them may (ms)."""
