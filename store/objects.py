"""Object storage: a bucket of S3 or R2 through aiobotocore, a local folder when none is named. Names, bytes, no more.

Names are ours, never a client's words: `media/<content hash>-<side>.webp` for everyone, `uploads/<random>` for us,
`exports/<random>.csv` for who has a signed link.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from aiobotocore.config import AioConfig  # type: ignore[import-untyped]  # ships no types
from aiobotocore.session import get_session  # type: ignore[import-untyped]  # ships no types
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]  # ships no types

from config.settings import Settings

PART_BYTES = 5 * 1024 * 1024
"""Least size of a part (bytes), the last one aside: S3 and R2 refuse smaller ones."""
PIECE_BYTES = 256 * 1024
PARTS = "parts"
FOLDER = "objects"
"""Name of the local folder under the data folder."""
TIMEOUT_S = 10.0
"""Time that connecting or one answer may take (s)."""
ATTEMPTS = 2
"""Tries of one call: what stays away longer is its caller's to repeat."""
IMMUTABLE = "public, max-age=31536000, immutable"
"""Cache-Control of what is named by its content: it never changes."""

_NAME = re.compile(r"[a-z0-9]+/[a-z0-9][a-z0-9.\-]{0,127}")
_MISSING = {"NoSuchKey", "NoSuchUpload", "404", "NotFound"}


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

    async def begin(self, name: str, *, media: str) -> str:
        """Begin an object that is written in parts; returns what names them. It is there only once it is finished."""
        ...

    async def put_part(self, name: str, upload: str, number: int, body: bytes) -> str:
        """Store part `number` (from 1), in place of an earlier try; returns its tag. All but the last: PART_BYTES."""
        ...

    async def finish(self, name: str, upload: str, tags: Sequence[str]) -> None:
        """Make the object of its parts, whose tags are given in order; a second time changes nothing."""
        ...

    async def abandon(self, name: str, upload: str) -> None:
        """Delete the parts of an object that is not finished; without any nothing happens."""
        ...

    async def link(self, name: str, *, called: str, media: str, seconds: int) -> str | None:
        """A link for `seconds` under which anyone gets an object, called so; None: the app serves it itself."""
        ...

    def pieces(self, name: str) -> AsyncIterator[bytes]:
        """An object's bytes, some at a time; raises KeyError when there is none."""
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


def _part(upload: str, number: int) -> str:
    return _checked(f"{PARTS}/{upload}-{number}")


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

    async def begin(self, name: str, *, media: str) -> str:  # noqa: ARG002 - a bucket's fact
        """Begin an object that is written in parts."""
        _checked(name)
        return secrets.token_hex(16)

    async def put_part(self, name: str, upload: str, number: int, body: bytes) -> str:  # noqa: ARG002 - the upload names it
        """Store a part."""
        await asyncio.to_thread(self._write, self._root / _part(upload, number), body)
        return str(number)

    async def finish(self, name: str, upload: str, tags: Sequence[str]) -> None:
        """Make the object of its parts."""
        await asyncio.to_thread(self._join, self._root / _checked(name), [_part(upload, int(tag)) for tag in tags])

    async def abandon(self, name: str, upload: str) -> None:  # noqa: ARG002 - the upload names it
        """Delete the parts of an object."""
        for path in await asyncio.to_thread(lambda: list((self._root / PARTS).glob(f"{upload}-*"))):
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def link(self, name: str, *, called: str, media: str, seconds: int) -> str | None:  # noqa: ARG002 - a bucket's
        """None: the app serves it itself."""
        return None

    async def pieces(self, name: str) -> AsyncIterator[bytes]:
        """An object's bytes, some at a time."""
        try:
            file = await asyncio.to_thread((self._root / _checked(name)).open, "rb")
        except FileNotFoundError:
            raise KeyError(name) from None
        try:
            while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                yield piece
        finally:
            await asyncio.to_thread(file.close)

    async def close(self) -> None:
        """Nothing is held."""

    def _join(self, path: Path, names: Sequence[str]) -> None:
        parts = [self._root / name for name in names]
        if path.exists() and not all(part.exists() for part in parts):
            return  # joined before, by who died before it could say so
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=self._root)
        try:
            with os.fdopen(handle, "wb") as whole:
                for part in parts:
                    with part.open("rb") as file:
                        shutil.copyfileobj(file, whole)
            Path(draft).replace(path)
        except OSError:
            Path(draft).unlink()
            raise
        for part in parts:
            part.unlink(missing_ok=True)

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

    async def begin(self, name: str, *, media: str) -> str:
        """Begin an object that is written in parts."""
        facts = {"ContentType": media, "CacheControl": "private, no-store"}
        return str((await self._call("create_multipart_upload", Key=_checked(name), **facts))["UploadId"])

    async def put_part(self, name: str, upload: str, number: int, body: bytes) -> str:
        """Store a part."""
        place = {"Key": _checked(name), "UploadId": upload, "PartNumber": number}
        found = await self._call("upload_part", Body=body, **place)
        if found is None:
            raise ObjectsAway("the bucket knows nothing of this upload any more")
        return str(found["ETag"])

    async def finish(self, name: str, upload: str, tags: Sequence[str]) -> None:
        """Make the object of its parts."""
        parts = {"Parts": [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]}
        place = {"Key": _checked(name), "UploadId": upload}
        done = await self._call("complete_multipart_upload", MultipartUpload=parts, **place)
        # No upload: it was finished before, by who died before it could say so.
        if done is None and await self._call("head_object", Key=name) is None:
            raise ObjectsAway("the bucket has neither the parts nor the object")

    async def abandon(self, name: str, upload: str) -> None:
        """Delete the parts of an object."""
        await self._call("abort_multipart_upload", Key=_checked(name), UploadId=upload)

    async def link(self, name: str, *, called: str, media: str, seconds: int) -> str | None:
        """A link that the bucket itself answers; made here, without asking it."""
        told = {"ResponseContentDisposition": f'attachment; filename="{called}"', "ResponseContentType": media}
        place = {"Bucket": self._settings.s3_bucket, "Key": _checked(name), **told}
        client = await self._opened()
        return str(await client.generate_presigned_url("get_object", Params=place, ExpiresIn=seconds))

    async def pieces(self, name: str) -> AsyncIterator[bytes]:
        """An object's bytes, some at a time."""
        found = await self._call("get_object", Key=_checked(name))
        if found is None:
            raise KeyError(name)
        async with found["Body"] as body:
            while piece := await body.read(PIECE_BYTES):
                yield piece

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
            signature_version="s3v4",  # links are signed by the second version otherwise, which R2 does not take
            s3={"addressing_style": "path" if settings.s3_endpoint else "auto"},
        )
        return {
            "endpoint_url": settings.s3_endpoint or None,
            "region_name": settings.s3_region,
            "aws_access_key_id": settings.s3_access_key or None,
            "aws_secret_access_key": settings.s3_secret_key.get_secret_value() or None,
            "config": config,
        }
