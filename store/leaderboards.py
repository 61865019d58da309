"""Standings of challenges in Redis: who is where among 100,000, and who has to be told, in one round trip.

Per challenge: `scores`, a sorted set of participants by score; `changes`, the number of the change that each stands by;
`told`, what each was told last; `waiting`, who is told later. Members are the 16 bytes of participants' random ids. All
of it is made again from PostgreSQL (`rebuild`) where `scores` or `changes` lack their mark, which every flush, eviction
or restart takes along. A change is only taken when its number is above the one known, so their order is PostgreSQL's.

While a rebuild reads, changes are also written to a `journal`, which the swap plays back onto the new keys: nothing
that commits meanwhile is lost, and readers see the old standings or the new ones, never a part.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import Any, NamedTuple
from uuid import UUID

from redis.exceptions import NoScriptError

from config import keys
from store import leaderboard_scripts as scripts
from store.redis import Client, bounded

EXACT = 2**53
"""Scores stay below this, either way: sorted sets hold doubles, and nothing may be rounded here."""
AT_ONCE = 100
"""Changes of one script call: some 20 us each, and Redis does nothing else meanwhile."""
FILL = 2000
"""Participants that one round trip of a rebuild writes; some milliseconds of Redis."""
FILL_TIMEOUT_S = 5.0
TOLD_AT_ONCE = 500
"""Participants of one challenge that wait and are told by one call."""
BUILD_LEASE_MS = 20_000
"""Time after which a rebuild that does not go on is somebody else's (ms)."""
KEPT_S = 3 * 86_400
"""Life of standings that nobody rebuilds or repairs any more (s): challenges end, and then nothing asks for them."""
NONE = -1

MARK = b""
"""Member of `scores`, `changes` and `journal` that no participant has: the key is whole while it is there."""


class NotBuilt(Exception):
    """The standings of this challenge are not in Redis. `building`: somebody makes them, with what was given here."""

    def __init__(self, *, building: bool) -> None:
        super().__init__("the standings are not in Redis")
        self.building = building


class Standing(NamedTuple):
    """A participant as a row says: `score` None once they left. `change` grows with every change of the row."""

    id: UUID
    score: int | None
    change: int


class Ranked(NamedTuple):
    """A participant's place; equal scores have equal ranks, and the next rank counts them all (1, 1, 3)."""

    id: UUID
    score: int
    rank: int


class Due(NamedTuple):
    """Someone who is to be told: their place now, and the rank they were told last (None: none yet)."""

    id: UUID
    score: int
    rank: int
    previous: int | None


class Place(NamedTuple):
    """A place in a list, best first: what follows has a lower score, or the same and a lower id."""

    score: int
    id: UUID


@dataclass(frozen=True, slots=True)
class Pace:
    """When somebody may be told: now (ms), and the least time between two tellings of one participant (ms)."""

    now_ms: int
    interval_ms: int


Pages = Callable[[], AsyncIterator[Sequence[Standing]]]
"""Reads all rows of a challenge, those who left too, as of one moment after it was called."""


class Leaderboards:
    """The standings of all challenges. Every method raises one of store.redis.AWAY while Redis does not answer."""

    def __init__(self, client: Client) -> None:
        self._client = client

    # -- changes ---------------------------------------------------------------------------------------------------

    async def apply(self, challenge: UUID, changes: Sequence[Standing], pace: Pace) -> list[Due]:
        """Take changes in; returns who is to be told now. Raises NotBuilt.

        Told are those whose score changed, and whoever is directly above or below them, at their old places and at the
        new ones, where that changed their rank. Who was told within the interval waits (`leaderboards:due`).
        """
        due: list[Due] = []
        for start in range(0, len(changes), AT_ONCE):
            part = changes[start : start + AT_ONCE]
            given = [each for one in part for each in _written(one)]
            answer = await self._eval(scripts.APPLY, challenge, pace.now_ms, pace.interval_ms, *given)
            if answer[0] != scripts.BUILT:
                building = answer[0] == scripts.BUILDING
                if building and start + AT_ONCE < len(changes):
                    continue  # the rest has to be in the journal, too
                raise NotBuilt(building=building)
            due += await self._told(challenge, answer)
        return due

    async def tell(self, challenge: UUID, ids: Sequence[UUID], pace: Pace) -> list[Due]:
        """Who of these is to be told now where they stand, whatever changed. Raises NotBuilt."""
        members = [each.bytes for each in ids[:TOLD_AT_ONCE]]
        answer = await self._eval(scripts.TELL, challenge, pace.now_ms, pace.interval_ms, *members)
        if answer[0] != scripts.BUILT:
            raise NotBuilt(building=False)
        return await self._told(challenge, answer)

    async def waiting(self, now_ms: int, *, limit: int) -> list[UUID]:
        """Challenges with someone who waits and may be told now; each is given to one caller, who calls `flush`."""
        found: list[bytes] = await bounded(
            self._client.zrangebyscore(keys.LEADERBOARDS_DUE, min="-inf", max=now_ms, start=0, num=limit)  # type: ignore[arg-type]  # members come as bytes
        )
        taken = [await bounded(self._client.zrem(keys.LEADERBOARDS_DUE, each)) for each in found]
        return [UUID(each.decode()) for each, mine in zip(found, taken, strict=True) if mine]

    async def flush(self, challenge: UUID, pace: Pace) -> list[Due]:
        """Who waited long enough, and has something to be told. Nobody, where the standings are gone."""
        answer = await self._eval(scripts.FLUSH, challenge, pace.now_ms, pace.interval_ms, TOLD_AT_ONCE)
        return await self._told(challenge, answer) if answer[0] == scripts.BUILT else []

    async def _told(self, challenge: UUID, answer: Sequence[Any]) -> list[Due]:
        """What a script says of who is told; the challenge is noted where somebody has to wait."""
        next_ms = int(answer[1])
        if next_ms != NONE:
            await bounded(self._client.zadd(keys.LEADERBOARDS_DUE, {str(challenge): next_ms}, lt=True))
        rest = iter(answer[2:])
        return [
            Due(UUID(bytes=member), int(score), int(rank), None if int(previous) == NONE else int(previous))
            for member, score, rank, previous in zip(rest, rest, rest, rest, strict=True)
        ]

    # -- reads -----------------------------------------------------------------------------------------------------

    async def count(self, challenge: UUID) -> int:
        """How many take part. Raises NotBuilt."""
        answer = await self._eval(scripts.COUNT, challenge)
        return int(_whole(answer)[1])

    async def ranked(self, challenge: UUID, id_: UUID) -> Ranked | None:
        """Where somebody is; None when they are not among them. Raises NotBuilt."""
        answer = _whole(await self._eval(scripts.RANK, challenge, id_.bytes))
        return None if len(answer) == 1 else Ranked(id_, int(answer[1]), int(answer[2]))

    async def page(self, challenge: UUID, after: Place | None, *, limit: int) -> list[Ranked]:
        """The next places after one, best first; it need not be anybody's any more. Raises NotBuilt."""
        place = ("", "") if after is None else (after.score, after.id.bytes)
        return _page(_whole(await self._eval(scripts.PAGE, challenge, limit, *place)))

    async def around(self, challenge: UUID, id_: UUID, *, limit: int) -> list[Ranked]:
        """`limit` places with somebody in the middle, and one more if there is one; [] when they are not among them."""
        return _page(_whole(await self._eval(scripts.AROUND, challenge, limit, id_.bytes)))

    async def states(self, challenge: UUID, ids: Sequence[UUID]) -> list[Standing | None]:
        """What Redis has of these, in their order: None for one it never heard of. Raises NotBuilt."""
        found: list[Standing | None] = []
        for start in range(0, len(ids), FILL):
            part = ids[start : start + FILL]
            answer = iter(_whole(await self._eval(scripts.STATES, challenge, *(each.bytes for each in part)))[1:])
            for id_, score, change in zip(part, answer, answer, strict=True):
                state = None if not change else Standing(id_, None if not score else int(score), int(change))
                found.append(state)
        return found

    async def members(self, challenge: UUID) -> AsyncIterator[list[UUID]]:
        """Everybody in the standings, in parts; who moves meanwhile may be missed or come twice. Raises NotBuilt."""
        place: Place | None = None
        while found := await self.page(challenge, place, limit=FILL):
            yield [each.id for each in found]
            place = Place(found[-1].score, found[-1].id)

    # -- rebuilds --------------------------------------------------------------------------------------------------

    async def rebuild(self, challenge: UUID, read: Pages) -> int | None:
        """Make the standings again beside what there is, then put them in place at once; returns how many take part.

        None: somebody else is at it, or Redis lost what was written meanwhile; who needs them asks again.
        """
        token = secrets.token_hex(8)
        if not await self._eval(scripts.BEGIN, challenge, token, BUILD_LEASE_MS, build=token):
            return None
        try:
            present = total = 0
            async for rows in read():
                for start in range(0, len(rows), FILL):
                    if not await self._fill(challenge, token, rows[start : start + FILL]):
                        return None
                total += len(rows)
                present += sum(each.score is not None for each in rows)
            swapped = await self._eval(scripts.SWAP, challenge, token, present, total, KEPT_S, build=token)
            return present if swapped else None
        finally:
            await self._eval(scripts.FORGET, challenge, token, build=token)

    async def _fill(self, challenge: UUID, token: str, rows: Sequence[Standing]) -> bool:
        given = [each for one in rows for each in _written(one)]
        async with asyncio.timeout(FILL_TIMEOUT_S):
            return bool(await self._script(scripts.FILL, challenge, (token, BUILD_LEASE_MS, *given), build=token))

    async def keep(self, challenge: UUID) -> None:
        """Let the standings live on: they are needed."""
        await self._eval(scripts.KEEP, challenge, KEPT_S)

    async def drop(self, challenge: UUID) -> None:
        """Forget a challenge: it has ended, or is to be made again by whoever needs it."""
        await self._eval(scripts.DROP, challenge)
        await bounded(self._client.zrem(keys.LEADERBOARDS_DUE, str(challenge)))

    # -- scripts ---------------------------------------------------------------------------------------------------

    async def _eval(self, script: str, challenge: UUID, *arguments: str | bytes | int, build: str = "") -> Any:
        return await bounded(self._script(script, challenge, arguments, build=build))

    async def _script(self, script: str, challenge: UUID, arguments: Sequence[str | bytes | int], *, build: str) -> Any:
        names = [keys.leaderboard(challenge, part) for part in scripts.PARTS]
        names += [keys.leaderboard(challenge, f"{part}:{build}") for part in scripts.BUILT_PARTS] if build else []
        try:
            return await self._client.evalsha(SHAS[script], len(names), *names, *arguments)
        except NoScriptError:  # Redis was restarted or flushed
            return await self._client.eval(script, len(names), *names, *arguments)


SHAS: Mapping[str, str] = {text: sha1(text.encode(), usedforsecurity=False).hexdigest() for text in scripts.ALL}


def _written(one: Standing) -> tuple[bytes, int | str, int]:
    if one.score is not None and abs(one.score) >= EXACT:
        raise ValueError(f"the score {one.score} of participant {one.id} is beyond what a sorted set holds exactly")
    return one.id.bytes, "" if one.score is None else one.score, one.change


def _whole(answer: Sequence[Any]) -> Sequence[Any]:
    if answer[0] != scripts.BUILT:
        raise NotBuilt(building=answer[0] == scripts.BUILDING)
    return answer


def _page(answer: Sequence[Any]) -> list[Ranked]:
    """Places from where the first one is, its rank, and members with scores in order."""
    if len(answer) == 1:
        return []
    rest = iter(answer[3:])
    places = [Place(int(score), UUID(bytes=member)) for member, score in zip(rest, rest, strict=True)]
    return ranked(places, at=int(answer[1]), rank=int(answer[2]))


def ranked(places: Sequence[Place], *, at: int, rank: int) -> list[Ranked]:
    """Ranks of places that follow each other: `at` come before the first one, whose rank is `rank`."""
    found: list[Ranked] = []
    for number, place in enumerate(places):
        if found and found[-1].score != place.score:
            rank = at + number + 1
        found.append(Ranked(place.id, place.score, rank))
    return found
