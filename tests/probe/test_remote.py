"""Photos in object storage: the same as in a folder, whatever the network does now and then."""

from __future__ import annotations

import http.server
import threading
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_onnx.errors import ExtraMissing, ProbeError
from milan_onnx.geometry import Geometry
from milan_onnx.probe import Loader, ProbeSet, Unusable, listing_digest, open_probe, remote, stored
from milan_onnx.probe.remote import RangedFile, Store
from tests.probe.helpers import fill, make_parquet, make_tar, make_zip, png

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("pyarrow")
MemoryFileSystem = fsspec.filesystem("memory").__class__

VIEW = Geometry((8, 8), 8)
NAMES = ["a/1 é.png", "a/2#x.png", "b%20/3.png", "c.png", "d/e/f.PNG"]


def photos(names: list[str]) -> dict[str, bytes]:
    return {name: png(seed) for seed, name in enumerate(names)}


def everything(probe: ProbeSet, **settings: int) -> tuple:
    loader = Loader(probe, VIEW, batch_size=3, **settings)
    frames = np.concatenate([batch.images for batch in loader])
    return list(probe.names), frames.tobytes(), loader.digests, listing_digest(probe)


def containers(folder: Path, files: dict[str, bytes]) -> dict[str, Path]:
    """The same photos in each kind of file."""
    return {
        "tar": make_tar(folder / "p.tar", files),
        "tgz": make_tar(folder / "p.tar.xz", files, "w:xz"),
        "zip": make_zip(folder / "p.zip", files),
        "parquet": make_parquet(folder / "p.parquet", files),
    }


def put(files: object, root: str, folder: Path) -> str:
    """Copy a local folder to a store."""
    for path in folder.rglob("*"):
        if path.is_file():
            files.pipe_file(f"{root}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return root


part = st.text("ab é#%+&=", min_size=1, max_size=3).map(lambda text: f"x{text}x")
folders = st.lists(part, max_size=2).map(lambda parts: "".join(f"{p}/" for p in parts))
endings = st.sampled_from([".png", ".PNG", ".tiff"])
name = st.builds("{}{}{}".format, folders, part, endings)


@settings(max_examples=15, deadline=None)
@given(
    names=st.lists(name, min_size=1, max_size=7, unique=True),
    threads=st.integers(1, 5),
    rows=st.integers(1, 4),
)
def test_every_source_gives_the_same_frames(tmp_path_factory, names, threads, rows):
    names = sorted(names)
    files, tmp = photos(names), tmp_path_factory.mktemp("sources")
    expected = everything(open_probe(fill(tmp / "folder", names)))
    assert expected[0] == names
    made = tmp / "files"
    made.mkdir()
    kinds = containers(made, files)
    make_parquet(kinds["parquet"], files, rows=rows)
    memory = fsspec.filesystem("memory")
    root = put(memory, f"/{uuid4()}", tmp)
    for place in (str(made), f"memory:/{root}/files"):
        for path in kinds.values():
            found = everything(open_probe(f"{place}/{path.name}"), workers=threads)
            # Of a compressed tar the listing's digest is of the whole file.
            same = 3 if path.suffix == ".xz" else 4
            assert found[:same] == expected[:same], path.name
    assert everything(open_probe(f"memory:/{root}/folder"), workers=threads) == expected
    memory.rm(root, recursive=True)


def test_s3_gives_the_same_as_a_folder(tmp_path, s3):
    expected = everything(open_probe(fill(tmp_path / "p", NAMES)))
    assert expected[0] == NAMES
    files = tmp_path / "files"
    files.mkdir()
    kinds = containers(files, photos(NAMES))
    put(s3, "bucket/photos", tmp_path / "p")
    put(s3, "bucket/files", files)
    s3.pipe_file("bucket/photos2/other.png", png(9))
    s3.pipe_file("bucket/photos/", b"")
    for source in ("s3://bucket/photos/", "s3://bucket/photos"):
        probe = open_probe(source)
        assert probe.source == source and probe.waits
        assert everything(probe) == expected
    for path in kinds.values():
        found = everything(open_probe(f"s3://bucket/files/{path.name}"))
        assert found[:3] == expected[:3], path.name
    shards = open_probe("s3://bucket/files/p.{tar,zip}")
    assert list(shards.names) == [f"p.{kind}/{n}" for kind in ("tar", "zip") for n in NAMES]
    joined = open_probe("s3://bucket/files/p.tar::s3://bucket/photos/", limit=5)
    assert joined.names[3] == "photos/a/2#x.png" and joined.read(3) == png(1)


def test_s3_that_is_not_there_or_closed(s3, monkeypatch):
    s3.pipe_file("bucket/one.png", png())
    for source, what in (
        ("s3://bucket/none/", "there is nothing below s3://bucket/none/"),
        ("s3://nobucket/x/", "the probe images s3://nobucket/x/ do not exist"),
        ("s3://bucket/none.tar", r"the probe images s3://bucket/none\.tar do not exist"),
        ("s3://bucket/none.parquet", r"s3://bucket/none\.parquet do not exist"),
        ("s3://bucket/none.txt", r"cannot read the list s3://bucket/none\.txt"),
        ("s3://bucket/one.png", "this is one image"),
        ("s3://", "cannot read s3://: .*"),
    ):
        with pytest.raises(ProbeError, match=what):
            open_probe(source)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    s3.clear_instance_cache()
    with pytest.raises(ProbeError, match=r"cannot read s3://bucket/x/: no access") as caught:
        open_probe("s3://bucket/x/")
    assert "AWS_PROFILE" in caught.value.hint
    s3.clear_instance_cache()


def test_lists_hold_addresses(tmp_path, s3):
    s3.pipe_file("bucket/l/x/a.png", png(1))
    fill(tmp_path, ["b.png"])
    (tmp_path / "l.txt").write_text("b.png\ns3://bucket/l/x/a.png\ns3://bucket/l/none.png\n")
    probe = open_probe(tmp_path / "l.txt")
    assert list(probe.names) == ["b.png", "s3://bucket/l/x/a.png", "s3://bucket/l/none.png"]
    assert [probe.read(0), probe.read(1)] == [png(0), png(1)]
    with pytest.raises(Unusable, match="cannot be read"):
        probe.read(2)
    for heading, last in (("path\n", "csv"), ("", "txt")):
        s3.pipe_file(f"bucket/l/l.{last}", f"{heading}x/a.png\n".encode())
        probe = open_probe(f"s3://bucket/l/l.{last}")
        assert list(probe.names) == ["x/a.png"] and probe.read(0) == png(1)


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


def test_what_fails_now_and_then_is_asked_for_again(flaky):
    for seed in range(4):
        flaky.store.clear() if not seed else None
        fsspec.filesystem("flaky").pipe_file(f"/p/{seed}.png", png(seed))
    flaky.plan += [TimeoutError("slow"), ConnectionResetError("gone"), None]
    probe = open_probe("flaky://p/")
    flaky.plan += [OSError("reset"), 7, None, TimeoutError(), TimeoutError(), TimeoutError(), None]
    assert [probe.read(i) for i in range(4)] == [png(i) for i in range(4)]
    assert not flaky.plan


def test_what_fails_for_good_ends_a_run(flaky):
    for seed in range(3):
        fsspec.filesystem("flaky").pipe_file(f"/p/{seed}.png", png(seed))
    probe = open_probe("flaky://p/")
    flaky.plan += [ConnectionResetError("the line is cut")] * 40
    with pytest.raises(ProbeError, match=r"cannot read flaky://p/0\.png: the line is cut"):
        list(Loader(probe, VIEW, batch_size=2, workers=1))
    flaky.plan.clear()
    flaky.asked.clear()
    flaky.plan += [PermissionError("token expired")]
    with pytest.raises(ProbeError, match=r"no access \(token expired\)"):
        probe.read(1)
    assert len(flaky.asked) == 1
    fsspec.filesystem("flaky").rm_file("/p/2.png")
    with pytest.raises(Unusable, match="cannot be read"):
        probe.read(2)


def test_a_parquet_file_that_is_cut_off_ends_a_run_and_is_read_again_later(flaky):
    files = {f"{i}.png": png(i) for i in range(6)}
    data = _bytes(make_parquet, files)
    fsspec.filesystem("flaky").pipe_file("/p.parquet", data)
    probe = open_probe("flaky://p.parquet")
    flaky.plan += [ConnectionResetError("the line is cut")] * 4
    with pytest.raises(ProbeError, match=r"cannot read flaky://p\.parquet: the line is cut"):
        probe.read(2)
    flaky.plan += [TimeoutError(), 9]
    assert [probe.read(i) for i in range(6)] == [png(i) for i in range(6)]


def test_an_object_that_is_too_large_is_not_read(flaky, monkeypatch):
    files = fsspec.filesystem("flaky")
    files.pipe_file("/p/a.png", png())
    files.pipe_file("/p/b.png", bytes(3000))
    files.pipe_file("/p/l.txt", b"b.png\n")
    for module in (remote, stored):
        monkeypatch.setattr(module, "MAX_BYTES", 2000)
    flaky.asked.clear()
    with pytest.raises(Unusable, match="over the limit"):
        open_probe("flaky://p/").read(1)
    with pytest.raises(Unusable, match="over the limit"):
        open_probe("flaky://p/l.txt").read(0)
    assert not flaky.asked


def test_a_photo_of_an_archive_is_one_request_and_headers_are_few_bytes(flaky):
    files = {f"{i:02}.png": bytes([i]) * 300_000 for i in range(10)}
    for kind, data in (("tar", tar_bytes(files)), ("zip", zip_bytes(files))):
        fsspec.filesystem("flaky").pipe_file(f"/x.{kind}", data)
        flaky.asked.clear()
        probe = open_probe(f"flaky://x.{kind}")
        listed = sum(end - start for _, start, end in flaky.asked)
        assert listed < len(data) / 3, kind
        flaky.asked.clear()
        assert probe.read(7) == bytes([7]) * 300_000
        assert len(flaky.asked) == 1


def tar_bytes(files: dict[str, bytes]) -> bytes:
    return _bytes(make_tar, files)


def zip_bytes(files: dict[str, bytes]) -> bytes:
    return _bytes(make_zip, files)


def _bytes(make, files: dict[str, bytes]) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return make(Path(folder) / "x", files).read_bytes()


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(0, 3000),
    moves=st.lists(st.tuples(st.integers(-50, 3100), st.integers(-1, 900)), max_size=12),
    least=st.integers(1, 64),
)
def test_a_file_object_reads_as_the_file(size, moves, least):
    data = np.random.default_rng(size).bytes(size)
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/ranged", data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "LEAST", least)
        patch.setattr(remote, "MOST", 4 * least)
        file = RangedFile(Store("memory://ranged").file("memory://ranged").sized())
    for place, count in moves:
        if place < 0:
            with pytest.raises(OSError, match="before the beginning"):
                file.seek(place)
            continue
        assert file.seek(place) == place
        assert file.read(count) == (data[place:] if count < 0 else data[place : place + count])
        assert file.tell() == max(place, min(len(data), file.tell()))
    assert file.seek(0, 2) == size and file.read() == b""


class Web(http.server.BaseHTTPRequestHandler):
    """Serves bytes by path; says no to some, and to ranges at /whole."""

    files: dict[str, bytes] = {}  # noqa: RUF012
    busy: list[int] = []  # noqa: RUF012

    def do_HEAD(self) -> None:
        self._reply(body=False)

    def do_GET(self) -> None:
        self._reply(body=True)

    def log_message(self, *args: object) -> None:
        return None

    def _reply(self, body: bool) -> None:
        path = self.path.split("?", 1)[0]
        if self.busy:
            self.send_error(self.busy.pop())
            return
        if path.startswith("/secret"):
            self.send_error(403)
            return
        if path not in self.files:
            self.send_error(404)
            return
        data, ranged = self.files[path], not path.startswith("/whole")
        asked = self.headers.get("Range")
        self.send_response(206 if asked and ranged else 200)
        if asked and ranged:
            first, last = asked.removeprefix("bytes=").split("-")
            data = data[int(first) : int(last) + 1]
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)


@pytest.fixture
def web(monkeypatch):
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(remote, "WAITS", (0.001, 0.001, 0.001))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    Web.files.clear()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_web(web):
    files = {f"{i}.png": png(i) for i in range(3)}
    Web.files |= {"/x.tar": tar_bytes(files), "/whole/x.tar": b"no ranges", "/a.png": png(1)}
    Web.files |= {"/whole/b.png": png(2), "/l.txt": b"a.png\nwhole/b.png\nnone.png\n"}
    probe = open_probe(f"{web}/x.tar?key=1")
    assert list(probe.names) == list(files) and probe.read(2) == png(2)
    listed = open_probe(f"{web}/l.txt")
    Web.busy += [503, 503]
    assert [listed.read(0), listed.read(1)] == [png(1), png(2)]
    assert not Web.busy
    with pytest.raises(Unusable, match="cannot be read"):
        listed.read(2)
    for path, what in (
        ("/none.tar", "do not exist"),
        ("/secret.tar", "no access|403"),
        ("/whole/x.tar", "bytes came instead of 6|no parts of it can be asked for"),
        ("/photos/", "has no folders to list"),
    ):
        with pytest.raises(ProbeError, match=what):
            open_probe(web + path)


def test_addresses_that_cannot_be(monkeypatch, tmp_path):
    for source, what in (
        ("nope://x/y", "cannot read nope://x/y: Protocol not known"),
        ("https://me:secret@host/x.tar", "holds a password"),
        (Path("s3://bucket/x"), "as text, with two slashes"),
        ("a.tar::", "an empty part"),
        ("http://[x/y.tar", "is no address"),
    ):
        with pytest.raises(ProbeError, match=what) as caught:
            open_probe(source)
        assert "secret" not in str(caught.value)

    def missing(name: str) -> object:
        raise ModuleNotFoundError(f"No module named '{name}'", name="fsspec")

    monkeypatch.setattr(remote.importlib, "import_module", missing)
    with pytest.raises(ExtraMissing, match=r"photos at s3:// need fsspec.*cpu,ray"):
        open_probe("s3://bucket/x")


def test_a_storage_whose_package_is_missing_is_named():
    fsspec.register_implementation(
        "lost", "no_such_package.Files", errtxt="Please install lostfs to access it", clobber=True
    )
    with pytest.raises(
        ExtraMissing, match=r"photos at lost:// need lostfs, which is not installed"
    ):
        open_probe("lost://x/y")


def test_file_addresses_are_paths(tmp_path):
    fill(tmp_path / "a b", ["x.png"])
    assert open_probe((tmp_path / "a b").as_uri()).read(0) == png(0)
