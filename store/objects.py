"""Object storage: a bucket of S3 or R2 through aiobotocore, a local folder when none is named. Names, bytes, no more.

Names are ours, never a client's words: `media/<content hash>-<side>.webp` for everyone, `uploads/<random>` for us.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from aiobotocore.config import AioConfig  # type: ignore[import-untyped]  # ships no types
from aiobotocore.session import get_session  # type: ignore[import-untyped]  # ships no types
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]  # ships no types

from config.settings import Settings

FOLDER = "objects"
"""Name of the local folder under the data folder."""
TIMEOUT_S = 10.0
"""Time that connecting or one answer may take (s)."""
ATTEMPTS = 2
"""Tries of one call: what stays away longer is its caller's to repeat."""
IMMUTABLE = "public, max-age=31536000, immutable"
"""Cache-Control of what is named by its content: it never changes."""

_NAME = re.compile(r"[a-z0-9]+/[a-z0-9][a-z0-9.\-]{0,127}")
_MISSING = {"NoSuchKey", "404", "NotFound"}


class ObjectsAway(ConnectionError):
    """The storage does not answer or refuses: nothing was decided, the same call may work later."""


class Objects(Protocol):
    """What may be done with objects; each call raises ObjectsAway when the storage is away."""

    async def put(self, name: str, body: bytes, *, media: str, public: bool) -> None:
        """Store an object. `public`: anyone may keep a copy of it for ever, its name is its content's."""
        ...

    async def get(self, name: str) -> bytes | None:
        """An object's bytes; None when there is none of this name."""
        ...

    async def delete(self, name: str) -> None:
        """Delete an object; one that is not there is deleted already."""
        ...

    async def older(self, folder: str, before: datetime) -> list[str]:
        """Names of objects in a folder that were stored before a time (aware), at most a thousand."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


def open_objects(settings: Settings) -> Objects:
    """The storage that the settings name; connects when first used."""
    return Bucket(settings) if settings.s3_bucket else Folder(settings.data_dir / FOLDER)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of an object")
    return name


class Folder:
    """Objects as files of one machine. Each is written beside its place first: a reader never sees half of one."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def put(self, name: str, body: bytes, *, media: str, public: bool) -> None:  # noqa: ARG002 - a bucket's facts
        """Store an object."""
        await asyncio.to_thread(self._write, self._root / _checked(name), body)

    async def get(self, name: str) -> bytes | None:
        """An object's bytes; None when there is none."""
        with suppress(FileNotFoundError):
            return await asyncio.to_thread((self._root / _checked(name)).read_bytes)
        return None

    async def delete(self, name: str) -> None:
        """Delete an object."""
        await asyncio.to_thread((self._root / _checked(name)).unlink, missing_ok=True)

    async def older(self, folder: str, before: datetime) -> list[str]:
        """Names of objects stored before a time."""
        return await asyncio.to_thread(self._older, folder, before)

    async def close(self) -> None:
        """Nothing is held."""

    def _write(self, path: Path, body: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=self._root)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(body)
            Path(draft).replace(path)
        except OSError:
            Path(draft).unlink()
            raise

    def _older(self, folder: str, before: datetime) -> list[str]:
        place = self._root / folder
        files = sorted(place.iterdir()) if place.is_dir() else []
        return [
            f"{folder}/{path.name}"
            for path in files
            if datetime.fromtimestamp(path.stat().st_mtime, UTC) < before.astimezone(UTC)
        ][:1000]


class Bucket:
    """Objects in S3 or R2."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._client: Any = None

    async def put(self, name: str, body: bytes, *, media: str, public: bool) -> None:
        """Store an object."""
        facts = {"CacheControl": IMMUTABLE} if public else {"CacheControl": "private, no-store"}
        await self._call("put_object", Key=_checked(name), Body=body, ContentType=media, **facts)

    async def get(self, name: str) -> bytes | None:
        """An object's bytes; None when there is none."""
        found = await self._call("get_object", Key=_checked(name))
        if found is None:
            return None
        try:
            async with found["Body"] as body:
                content: bytes = await body.read()
                return content
        except (BotoCoreError, OSError) as error:
            raise ObjectsAway(f"the bucket broke off: {error}") from error

    async def delete(self, name: str) -> None:
        """Delete an object."""
        await self._call("delete_object", Key=_checked(name))

    async def older(self, folder: str, before: datetime) -> list[str]:
        """Names of objects stored before a time."""
        found = await self._call("list_objects_v2", Prefix=f"{folder}/", MaxKeys=1000)
        return [each["Key"] for each in (found or {}).get("Contents", ()) if each["LastModified"] < before]

    async def close(self) -> None:
        """Let go of connections; a later call opens them again."""
        self._client = None
        await self._stack.aclose()

    async def _call(self, method: str, **arguments: Any) -> Any:
        """Answer of one call, None for an object that is not there."""
        try:
            client = await self._opened()
            return await getattr(client, method)(Bucket=self._settings.s3_bucket, **arguments)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _MISSING:
                return None
            raise ObjectsAway(f"the bucket refuses {method}: {code}") from error
        except (BotoCoreError, OSError) as error:
            raise ObjectsAway(f"the bucket does not answer: {error}") from error

    async def _opened(self) -> Any:
        async with self._opening:
            if self._client is None:
                self._client = await self._stack.enter_async_context(get_session().create_client("s3", **self._facts))
        return self._client

    @property
    def _facts(self) -> dict[str, Any]:
        settings = self._settings
        config = AioConfig(
            connect_timeout=TIMEOUT_S,
            read_timeout=TIMEOUT_S,
            retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
            # R2 and others do not know the checksums that newer clients send unasked.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path" if settings.s3_endpoint else "auto"},
        )
        return {
            "endpoint_url": settings.s3_endpoint or None,
            "region_name": settings.s3_region,
            "aws_access_key_id": settings.s3_access_key or None,
            "aws_secret_access_key": settings.s3_secret_key.get_secret_value() or None,
            "config": config,
        }
