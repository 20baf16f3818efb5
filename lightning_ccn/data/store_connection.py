"""The connection of a process to an object store, through `pyarrow.fs`."""

from __future__ import annotations

import os

import pyarrow as pa
from pyarrow import fs

from lightning_ccn.errors import DataError

ENDPOINT = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")

# By process and address: a fork shares the connections of its parent, and two processes cannot talk through one. What a
# fork inherits stays here, because the end of such an object would close a connection of the parent.
_STORES: dict[tuple[int, str], tuple[fs.FileSystem, str]] = {}


def connection(store: str, options: str) -> tuple[fs.FileSystem, str]:
    """The file system of a store, of this process, and the path of its root, such as the bucket.

    Args:
        store: Its address without a path, such as `s3://bucket`.
        options: Options of pyarrow, from `?` on.

    Raises:
        DataError: pyarrow knows no such store.
        OSError: It cannot be reached.
    """
    key = (os.getpid(), store + options)
    if key not in _STORES:
        _STORES[key] = _connect(store, options)
    return _STORES[key]


def _connect(store: str, options: str) -> tuple[fs.FileSystem, str]:
    if store.startswith("s3://") and "endpoint_override=" not in options:
        endpoint = next((os.environ[name] for name in ENDPOINT if os.environ.get(name)), None)
        if endpoint:  # with it in the address, pyarrow does not ask Amazon where the bucket is
            region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
            given = {"endpoint_override": endpoint.partition("://")[2] or endpoint, "region": region}
            given["scheme"] = "http" if endpoint.startswith("http://") else "https"
            more = "&".join(f"{name}={value}" for name, value in given.items() if f"{name}=" not in options)
            options = f"{options}&{more}" if options else f"?{more}"
    try:
        found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(f"{store}/{options}")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"{store}{options}: is not a store that pyarrow can open ({' '.join(str(error).split())}); name one that "
            "begins with s3://, gs:// or hdfs://, or a folder"
        ) from None
    return found
