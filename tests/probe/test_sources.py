"""Each kind of source, and what is said when it cannot be used."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from milan_onnx.errors import ProbeError, UsageError
from milan_onnx.probe import Unusable, archive, open_probe
from milan_onnx.probe.base import is_image_name
from tests.probe.helpers import encoded, fill, make_tar, make_zip, picture, png

TAR_KINDS = [("t.tar", "w"), ("t.tar.gz", "w:gz"), ("t.tgz", "w:gz"), ("t.tar.bz2", "w:bz2"),
             ("t.tar.xz", "w:xz")]  # fmt: skip


def test_folder_is_sorted_by_relative_path(tmp_path):
    names = ["b/2.PNG", "a.jpeg", "b/1.png", "B.webp", ".hidden.png", ".h/x.png", "__MACOSX/a.png"]
    fill(tmp_path, names)
    (tmp_path / "notes.txt").write_text("x")
    probe = open_probe(tmp_path)
    assert list(probe.names) == ["B.webp", "a.jpeg", "b/1.png", "b/2.PNG"]
    assert len(probe) == 4 and str(tmp_path) == probe.source
    assert probe.read(1) == png(1)
    assert probe.image(1).mode == "RGB" and probe.image(1).size == (20, 24)


def test_links_are_followed_once_and_loops_end(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    fill(root, ["real/a.png"])
    fill(outside, ["b.png"])
    (root / "again").symlink_to(root / "real")
    (root / "up").symlink_to(root)
    (root / "out").symlink_to(outside)
    (root / "self").symlink_to(root / "self")
    (root / "gone.png").symlink_to(root / "nothing")
    (root / "file.png").symlink_to(outside / "b.png")
    assert list(open_probe(root).names) == ["file.png", "out/b.png", "real/a.png"]


def test_odd_file_names_become_text(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9\n.png"
    try:
        Path(os.fsdecode(path)).write_bytes(png())
    except OSError:
        pytest.skip("this file system has no such names")
    probe = open_probe(tmp_path)
    assert list(probe.names) == ["caf��.png"]
    assert probe.read(0) == png()


def test_names_in_other_scripts_stay_as_they_are(tmp_path):
    names = sorted(["写真\u3000一.png", "é.png", "👩\u200d🌾.png"])
    assert list(open_probe(fill(tmp_path, names)).names) == names


def test_a_vanished_file_is_unusable(tmp_path):
    probe = open_probe(fill(tmp_path, ["a.png"]))
    (tmp_path / "a.png").unlink()
    with pytest.raises(Unusable, match="no such file"):
        probe.read(0)


def test_a_huge_file_is_not_read(tmp_path):
    fill(tmp_path, ["a.png"])
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(300 << 20)
    with pytest.raises(Unusable, match="300 MiB is over the limit"):
        open_probe(tmp_path).read(0)


def test_list_keeps_its_order_and_skips_comments(tmp_path):
    fill(tmp_path / "photos", ["x.png", "y.png"])
    path = tmp_path / "list.txt"
    path.write_text("\ufeff# two photos\n\nphotos/y.png\n  photos/x.png  \n", encoding="utf-8")
    probe = open_probe(path)
    assert list(probe.names) == ["photos/y.png", "photos/x.png"]
    assert probe.read(0) == png(1)


def test_list_of_absolute_paths(tmp_path):
    fill(tmp_path / "photos", ["x.png"])
    path = tmp_path / "list.lst"
    path.write_text(str(tmp_path / "photos/x.png"))
    assert open_probe(path).read(0) == png(0)


def test_csv_has_one_column_with_or_without_heading(tmp_path):
    fill(tmp_path, ["a, b.png", "c.png"])
    path = tmp_path / "list.csv"
    path.write_text('path\n"a, b.png"\nc.png\n')
    assert list(open_probe(path).names) == ["a, b.png", "c.png"]
    path.write_text("# made by hand\nfile\nc.png\n")
    assert list(open_probe(path).names) == ["c.png"]
    path.write_text("c.png,cat\n")
    with pytest.raises(ProbeError, match=r"line 1 of .* has 2 columns"):
        open_probe(path)


def test_list_names_the_missing_line(tmp_path):
    fill(tmp_path, ["a.png"])
    path = tmp_path / "list.txt"
    path.write_text("a.png\nb.png\n")
    with pytest.raises(ProbeError, match=r"line 2 of .*list\.txt: b\.png does not exist"):
        open_probe(path)
    path.write_text("x" * 5000)
    with pytest.raises(ProbeError, match="file name too long"):
        open_probe(path)
    path.write_text(".\n")
    with pytest.raises(ProbeError, match="is a folder"):
        open_probe(path)


@pytest.mark.parametrize("data", [b"", b"# nothing\n", "a.png".encode("utf-16")])
def test_useless_lists(tmp_path, data):
    path = tmp_path / "list.txt"
    path.write_bytes(data)
    with pytest.raises(ProbeError, match=r"names no images|not UTF-8"):
        open_probe(path)


def test_zip(tmp_path):
    files = {"b/2.png": png(2), "a.png": png(1), "c\\3.png": png(3), ".x.png": b"", "x.txt": b""}
    probe = open_probe(make_zip(tmp_path / "p.ZIP", files))
    assert list(probe.names) == ["a.png", "b/2.png", "c/3.png"]
    assert [probe.read(i) for i in (2, 0, 1)] == [png(3), png(1), png(2)]
    probe.close()
    assert probe.read(0) == png(1)


@pytest.mark.parametrize(("name", "mode"), TAR_KINDS)
def test_tar_reads_in_any_order(tmp_path, name, mode):
    files = {f"{i:03d}.png": png(i) for i in range(8)} | {"000.json": b"{}"}
    probe = open_probe(make_tar(tmp_path / name, files, mode))
    assert list(probe.names) == [f"{i:03d}.png" for i in range(8)]
    for i in (0, 1, 2, 5, 3, 4, 7, 0, 6, 6, 7):
        assert probe.read(i) == png(i)
    probe.close()
    assert probe.read(3) == png(3)


def test_plain_tar_is_sorted_by_name(tmp_path):
    probe = open_probe(make_tar(tmp_path / "t.tar", {"b.png": png(1), "./a.png": png(0)}))
    assert list(probe.names) == ["a.png", "b.png"]
    assert probe.read(0) == png(0)


def test_compressed_tar_keeps_little_and_rewinds_only_when_it_must(tmp_path, monkeypatch):
    files = {f"{i:02d}.png": bytes([i]) * 1000 for i in range(20)}
    probe = open_probe(make_tar(tmp_path / "t.tar.gz", files, "w:gz"))
    monkeypatch.setattr(archive, "CACHE_BYTES", 3000)
    stream = probe._stream
    opened, opener = [], stream._opener
    monkeypatch.setattr(stream, "_opener", lambda: opened.append(1) or opener())
    for i in (2, 0, 1, 4, 3):
        assert probe.read(i)[0] == i
    assert len(opened) == 1
    assert probe.read(19)[0] == 19 and stream._held == 3000
    assert probe.read(17)[0] == 17 and len(opened) == 1
    assert probe.read(5)[0] == 5 and len(opened) == 2
    assert stream._held <= 3000


def test_shards(tmp_path):
    for n in range(3):
        make_tar(tmp_path / f"s-{n:02d}.tar", {f"{n}{k}.png": png(10 * n + k) for k in range(2)})
    probe = open_probe(tmp_path / "s-{00..02}.tar")
    assert len(probe) == 6
    assert probe.names[3] == "s-01.tar/11.png"
    assert probe.read(3) == png(11)
    with pytest.raises(ProbeError, match=r"s-03\.tar do not exist"):
        open_probe(tmp_path / "s-{00..03}.tar")
    with pytest.raises(ProbeError, match="shards"):
        open_probe(tmp_path / "s-{5..1}.tar")


@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_paths_that_climb_out_are_refused(tmp_path, name, kind):
    make = make_zip if kind == "zip" else make_tar
    with pytest.raises(ProbeError, match="climbs out"):
        open_probe(make(tmp_path / f"x.{kind}", {"a.png": png(), name: png()}))


def test_backslashes_in_a_zip_do_not_climb_either(tmp_path):
    with pytest.raises(ProbeError, match="climbs out"):
        open_probe(make_zip(tmp_path / "x.zip", {"..\\evil.png": png()}))


def test_absolute_names_become_relative(tmp_path):
    probe = open_probe(make_tar(tmp_path / "x.tar", {"/home/a.png": png()}))
    assert list(probe.names) == ["home/a.png"]


def test_links_and_devices_in_a_tar_are_left_alone(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in (("l.png", tarfile.SYMTYPE), ("h.png", tarfile.LNKTYPE),
                           ("d.png", tarfile.CHRTYPE), ("f.png", tarfile.FIFOTYPE)):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        info = tarfile.TarInfo("a.png")
        info.size = len(png())
        tar.addfile(info, io.BytesIO(png()))
    assert list(open_probe(path).names) == ["a.png"]


def test_member_that_says_it_is_huge(tmp_path, monkeypatch):
    files = {"a.png": png(0), "b.png": b"x" * 5000}
    monkeypatch.setattr(archive, "MAX_BYTES", 4000)
    for path in (make_zip(tmp_path / "x.zip", files), make_tar(tmp_path / "x.tar", files),
                 make_tar(tmp_path / "x.tar.gz", files, "w:gz")):  # fmt: skip
        probe = open_probe(path)
        with pytest.raises(Unusable, match="over the limit"):
            probe.read(1)
        assert probe.read(0) == png(0)


def test_a_tar_header_that_asks_for_gigabytes(tmp_path):
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 6 << 30
    path = tmp_path / "x.tar.gz"
    import gzip

    with gzip.open(path, "wb") as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 20))
    with pytest.raises(ProbeError, match="cannot read the archive"):
        open_probe(path)


def test_damaged_member_is_unusable(tmp_path):
    path = make_zip(tmp_path / "x.zip", {"a.png": b"A" * 500, "b.png": png(1)})
    path.write_bytes(path.read_bytes().replace(b"A" * 500, b"B" * 500))
    probe = open_probe(path)
    with pytest.raises(Unusable, match="damaged in the archive"):
        probe.read(0)
    assert probe.read(1) == png(1)


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tar.bz2", "x.tar.xz"])
@pytest.mark.parametrize(
    "data", [b"", b"not an archive at all", b"\x1f\x8b\x08broken", b"PK\3\4.."]
)
def test_unreadable_archives(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ProbeError, match=r"cannot read the archive|holds no images") as caught:
        open_probe(tmp_path / name)
    assert caught.value.hint and caught.value.exit_code == 5


@pytest.mark.parametrize(("name", "mode"), TAR_KINDS)
def test_cut_archives(tmp_path, name, mode):
    files = {f"{i}.png": os.urandom(20_000) for i in range(4)}
    path = make_tar(tmp_path / name, files, mode)
    path.write_bytes(path.read_bytes()[:50_000])
    with pytest.raises(ProbeError, match="cannot read the archive"):
        open_probe(path)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archive_without_images(tmp_path, kind):
    make = make_zip if kind == "zip" else make_tar
    with pytest.raises(ProbeError, match=r"holds no images \(2 other files\)"):
        open_probe(make(tmp_path / f"x.{kind}", {"a.txt": b"", "b.txt": b""}))


def test_missing_empty_and_strange_paths(tmp_path):
    with pytest.raises(ProbeError, match="do not exist"):
        open_probe(tmp_path / "nothing")
    with pytest.raises(ProbeError, match=r"holds no images \(0 other files\)"):
        open_probe(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ProbeError, match=r"holds no images \(1 other file\)"):
        open_probe(tmp_path)
    fill(tmp_path, ["a.png"])
    with pytest.raises(ProbeError, match="is one image"):
        open_probe(tmp_path / "a.png")
    (tmp_path / "a.bin").write_text("x")
    with pytest.raises(ProbeError, match="not a known kind"):
        open_probe(tmp_path / "a.bin")


def test_limit_is_evenly_spaced(tmp_path):
    fill(tmp_path, [f"{c}/{k}.png" for c in "abcd" for k in range(3)])
    probe = open_probe(tmp_path, limit=4)
    assert list(probe.names) == ["a/0.png", "b/0.png", "c/0.png", "d/0.png"]
    assert probe.read(2) == png(6) and "4 of 12" in probe.name
    assert len(open_probe(tmp_path, limit=100)) == 12
    assert len(open_probe(None, limit=7)) == 7
    with pytest.raises(UsageError, match="limit"):
        open_probe(tmp_path, limit=0)


def test_image_names():
    assert is_image_name("a/b.JPG") and is_image_name("x.y.tiff")
    assert not any(
        map(is_image_name, ("a", "a.txt", ".a.png", "a/.b/c.png", "__MACOSX/a.png", "jpg"))
    )


def test_grey_photo_is_rgb(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(picture().convert("L")))
    assert open_probe(tmp_path).image(0).mode == "RGB"
