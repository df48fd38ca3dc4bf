"""Object storage on loopback: moto's S3, and stores in memory that misbehave on purpose."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from milan_onnx.probe import remote

fsspec = pytest.importorskip("fsspec")
MemoryFileSystem = fsspec.filesystem("memory").__class__


@pytest.fixture(scope="session")
def s3() -> Iterator[object]:
    """An S3 with an empty bucket, ``bucket``: its fsspec file system."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    pytest.importorskip("s3fs")
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        files = fsspec.filesystem("s3", skip_instance_cache=True)
        files.mkdir("bucket")
        yield files
    server.stop()


class FlakyFiles(MemoryFileSystem):
    """A memory store whose requests fail as ``plan`` says: exceptions, or bytes to cut off."""

    protocol = "flaky"
    store: dict = {}  # noqa: RUF012 - as fsspec has it
    pseudo_dirs = [""]  # noqa: RUF012
    plan: list = []  # noqa: RUF012
    asked: list = []  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("flaky://").strip("/")

    def cat_file(self, path, start=None, end=None, **kwargs):
        FlakyFiles.asked.append((path, start, end))
        what = FlakyFiles.plan.pop(0) if FlakyFiles.plan else None
        if isinstance(what, BaseException):
            raise what
        data = super().cat_file(path, start, end, **kwargs)
        return data[: len(data) - what] if what else data

    def find(self, path, **kwargs):
        what = FlakyFiles.plan.pop(0) if FlakyFiles.plan else None
        if isinstance(what, BaseException):
            raise what
        return super().find(path, **kwargs)


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> type[FlakyFiles]:
    """An empty store at flaky://, waited for no longer than a moment."""
    fsspec.register_implementation("flaky", FlakyFiles, clobber=True)
    monkeypatch.setattr(remote, "WAITS", (0.001, 0.001, 0.001))
    for kept in (FlakyFiles.store, FlakyFiles.plan, FlakyFiles.asked):
        kept.clear()
    return FlakyFiles
