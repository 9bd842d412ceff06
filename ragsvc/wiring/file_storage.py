"""Opens the storage of the uploaded files that the settings name, and checks that it can be used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ragsvc.config import Settings
from ragsvc.core.errors import ConfigurationError
from ragsvc.core.file_places import BucketPlace, FolderPlace, parse_files_url
from ragsvc.core.ports.file_storage import FileStorage
from ragsvc.store.directory_identity import directory_id
from ragsvc.store.file_cache import FileCache
from ragsvc.store.file_location import OWNER, claim_files, require_local_files
from ragsvc.store.local_files import LocalFiles
from ragsvc.store.shared_folder import SharedFolder

CACHE_FOLDER_NAME: Final = "file_cache"
_CREDENTIALS: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
"""Variables one of which is set where the role of a virtual machine is not the source of the credentials."""
_REASONS: Final = {
    "NoSuchBucket": "there is no such bucket",
    "InvalidAccessKeyId": "the store does not know AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID",
    "AccessDenied": "the credentials may not use the bucket",
}


def open_file_storage(settings: Settings) -> FileStorage:
    """The storage for a service, whose place belongs to the data directory from then on.

    Raises:
        ConfigurationError: the place cannot be used, or belongs to another data directory.
        StorageUnavailable: it stopped to answer.
    """
    files = connect_file_storage(settings, cache_folder=settings.data_dir / CACHE_FOLDER_NAME)
    if files.is_elsewhere:
        identity = directory_id(settings.data_dir)
        if identity is None:
            raise ConfigurationError([f"{settings.data_dir} cannot be written, and files_url needs its id"])
        claim_files(files, settings.data_dir, identity)
        if isinstance(files, SharedFolder):
            files.require(OWNER)
    return files


def connect_file_storage(settings: Settings, *, cache_folder: Path) -> FileStorage:
    """The storage, without a change of it; copies of its files are kept in ``cache_folder``, which is emptied.

    Raises:
        ConfigurationError: the place cannot be used.
    """
    if settings.files_url is None:
        require_local_files(settings.data_dir)
        return LocalFiles(settings.data_dir)
    place = parse_files_url(settings.files_url)
    return _open_folder(place) if isinstance(place, FolderPlace) else _open_bucket(place, settings, cache_folder)


def _open_folder(place: FolderPlace) -> FileStorage:
    if not place.path.is_dir():
        raise ConfigurationError([f"files_url: the folder {place.path} does not exist, or is not mounted"])
    return SharedFolder(place.path)


def _open_bucket(place: BucketPlace, settings: Settings, cache_folder: Path) -> FileStorage:
    try:
        from ragsvc.store.object_files import ObjectFiles, open_bucket  # noqa: PLC0415 - needs an extra
    except ModuleNotFoundError as error:
        raise ConfigurationError(["files_url: s3:// needs the extra 's3': pip install 'ragsvc[s3]'"]) from error
    try:
        bucket = open_bucket(
            place.bucket, prefix=place.prefix, endpoint=settings.files_endpoint, region=settings.files_region
        )
    except ValueError as error:
        raise ConfigurationError([f"files_url: {place} cannot be used ({error})"]) from None
    cache = FileCache(cache_folder, max_bytes=settings.files_cache_bytes)
    files = ObjectFiles(bucket, cache, location=str(place))
    if not files.probe():
        at = f" at {settings.files_endpoint}" if settings.files_endpoint else ""
        reason = files.fault or "it does not answer"
        hint = "" if any(name in os.environ for name in _CREDENTIALS) else "; AWS_ACCESS_KEY_ID is not set"
        raise ConfigurationError([f"files_url: {place}{at} cannot be used: {_REASONS.get(reason, reason)}{hint}"])
    return files
