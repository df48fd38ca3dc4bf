"""What the quick reader of tar headers finds is what tarfile finds."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_onnx.probe.headers import Entry, entries

KINDS = [
    tarfile.REGTYPE,
    tarfile.AREGTYPE,
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.FIFOTYPE,
    tarfile.CONTTYPE,
]
member = st.tuples(
    st.text("ab/é ", min_size=1, max_size=12) | st.text("xy/", min_size=90, max_size=300),
    st.sampled_from(KINDS) | st.just(tarfile.REGTYPE),
    st.integers(0, 1500),
    st.sampled_from([0, 1.5, 1e10]),
    st.sampled_from([{}, {"comment": "é\n12 path=x"}, {"size": "3"}, {"path": "other.png"}]),
)


def packed(
    members: list[tuple], kind: int, records: dict[str, str], encoding: str = "utf-8"
) -> bytes:
    file = io.BytesIO()
    with tarfile.open(
        fileobj=file, mode="w", format=kind, pax_headers=records, encoding=encoding
    ) as tar:
        for name, type_, size, time, extra in members:
            info = tarfile.TarInfo(name)
            info.type, info.mtime, info.linkname = type_, time, "target"
            info.pax_headers = extra
            info.size = size if info.isreg() else 0
            tar.addfile(info, io.BytesIO(bytes(size)) if info.isreg() else None)
    return file.getvalue()


def by_tarfile(data: bytes) -> list[Entry] | type[Exception]:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            return [
                Entry(i.name, i.offset_data, i.size, i.isreg() and not i.issparse(), i.isdir())
                for i in tar
            ]
    except tarfile.TarError as error:
        return type(error)


def quick(data: bytes) -> list[Entry] | type[Exception]:
    try:
        return list(entries(io.BytesIO(data)))
    except tarfile.TarError as error:
        return type(error)


@settings(max_examples=150, deadline=None)
@given(
    members=st.lists(member, max_size=6),
    kind=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    records=st.sampled_from([{}, {"mtime": "1"}, {"path": "global.png"}]),
)
def test_the_same_as_tarfile(members, kind, records):
    try:
        data = packed(members, kind, records)
    except ValueError:  # a name that the format cannot hold
        return
    assert quick(data) == by_tarfile(data)


@settings(max_examples=150, deadline=None)
@given(
    cut=st.integers(0, 12_000),
    places=st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 255)), max_size=3),
)
def test_the_same_as_tarfile_on_damaged_files(cut, places):
    members = [
        ("a.png", tarfile.REGTYPE, 700, 0, {}),
        ("b" * 120, tarfile.REGTYPE, 10, 1.5, {}),
        ("c", tarfile.DIRTYPE, 0, 0, {}),
        ("d.png", tarfile.REGTYPE, 512, 1.5, {}),
    ]
    data = bytearray(packed(members, tarfile.PAX_FORMAT, {})[: cut or None])
    for place, value in places:
        if place < len(data):
            data[place] = value
    try:
        assert quick(bytes(data)) == by_tarfile(bytes(data))
    except (ValueError, OverflowError) as error:
        assert type(error) in (ValueError, OverflowError)  # from tarfile itself, of bad records


def test_a_header_that_asks_for_gigabytes_is_refused():
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 6 << 30
    data = info.tobuf(tarfile.GNU_FORMAT) + bytes(4096)
    with pytest.raises(tarfile.ReadError, match="16 MiB"):
        list(entries(io.BytesIO(data)))


def test_a_size_below_zero_does_not_go_round_and_round():
    info = tarfile.TarInfo("x")
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = b"-0000001000\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(tarfile.ReadError, match="leads back"):
        list(entries(io.BytesIO(bytes(header) + bytes(4096))))
