"""Descriptions and scores over HTTP: as on the command line, and every bad request named."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import zlib
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from milan_onnx.bundle import PARTS, Calibration, SearchDefaults, load_bundle
from milan_onnx.describing import DescribeOptions, describe_folder
from milan_onnx.exemplar_folder import ExemplarWriter
from milan_onnx.labels import UnitLabel
from milan_onnx.runtime import Hypothesis
from milan_onnx.serve.captioning.engine import Describe
from milan_onnx.serve.captioning.tasks import DescribeWish
from tests.serve.exemplars import blob, body, form, photo, png, service, sets
from tests.toy import toy_bundle

UNITS, K = 5, 4
JSON = {"content-type": "application/json"}


def post(
    bundle: Path, *sent: Any, path: str = "/v1/describe", **given: Any
) -> list[httpx.Response]:
    """Answers to bodies sent at once: JSON, its bytes, or the parts of a form."""

    async def work() -> list[httpx.Response]:
        async with service(bundle, **given) as client:

            def ask(one: Any) -> Any:
                if isinstance(one, bytes):
                    return client.post(path, content=one, headers=JSON)
                return client.post(path, **{"json" if isinstance(one, dict) else "files": one})

            return await asyncio.gather(*map(ask, sent))

    return asyncio.run(work())


def labels_of_folder(folder: Path, bundle: Path, count: int, side: int) -> list[UnitLabel]:
    """What `describe-exemplars` says of `sets`."""
    images, masks = sets(count, K)
    writer = ExemplarWriter(folder / "layer", count, K, side)
    for unit in range(count):
        for rank in range(K):
            writer.put(unit, rank, images[unit, rank], masks[unit, rank])
    ids = np.arange(count * K).reshape(count, K)
    writer.close(ids, np.ones((count, K), np.float32))
    options = DescribeOptions(report=False)
    run = describe_folder(folder / "layer", folder / "run", bundle=bundle, options=options)
    return list(run.labels)


def told(label: UnitLabel) -> dict[str, Any]:
    """A label as the service says it."""
    names = ("description", "confidence", "pmi", "log_p_given_exemplars", "log_p")
    mine = {name: getattr(label, name) for name in names}
    candidates = [{n: getattr(c, n) for n in names} for c in label.candidates]
    return mine | {"candidates": candidates}


@pytest.mark.parametrize("legacy", [False, True])
def test_answers_are_those_of_describe_exemplars_to_the_last_bit(
    tmp_path: Path, legacy: bool
) -> None:
    search = SearchDefaults(legacy=legacy, beam_size=8, forbid=() if legacy else (31, 33, 34))
    bundle = toy_bundle(tmp_path / "bundle", search=search).path
    labels = labels_of_folder(tmp_path, bundle, UNITS, 40)
    sent = body(*sets(UNITS, K))
    answers = post(bundle, sent, form(sent), sent)
    for answer in answers:
        assert answer.status_code == 200, answer.text
        assert answer.json()["units"] == [told(label) for label in labels]
    assert len({label.pmi for label in labels}) == UNITS


def test_a_confidence_is_told_as_it_was_found(bundle_path: Path) -> None:
    task = Describe(load_bundle(bundle_path).manifest.search, 2)
    best = Hypothesis("dogs", -1.0, -2.0, -3.0, (1,), confidence=0.712345678)
    other = Hypothesis("cats", -2.0, -2.0, -3.0, (2,), confidence=0.1)
    (unit, none) = DescribeWish("ab", task).told([[best, other], []]).units
    assert (unit.confidence, unit.pmi) == (0.712345678, -1.0)
    assert [one.confidence for one in unit.candidates] == [0.712345678, 0.1]
    assert none.confidence is None and none.candidates == []


def test_the_built_in_captioner_answers_as_describe_exemplars_does(tmp_path: Path) -> None:
    from milan_onnx.bundle import default_bundle_path

    labels = labels_of_folder(tmp_path, default_bundle_path(), 2, 40)
    (answer,) = post(default_bundle_path(), body(*sets(2, K)))
    assert answer.json()["units"] == [told(label) for label in labels]


def test_a_phrase_that_was_found_scores_as_it_was_found(bundle_path: Path) -> None:
    sent = body(*sets(3, K))
    (found,) = post(bundle_path, sent | {"candidates": 3})
    phrases = [one["description"] for one in found.json()["units"][0]["candidates"]]
    (scored,) = post(bundle_path, sent | {"phrases": phrases}, path="/v1/score")
    first = scored.json()["units"][0]["phrases"]
    for one, candidate in zip(first, found.json()["units"][0]["candidates"], strict=True):
        assert one["phrase"] == candidate["description"]
        assert one["pmi"] == pytest.approx(candidate["pmi"], abs=1e-5)
    assert len(scored.json()["units"]) == 3
    (other,) = post(bundle_path, sent | {"phrases": phrases, "pmi_weight": 0.0}, path="/v1/score")
    again = other.json()["units"][0]["phrases"][0]
    assert again["pmi"] == again["log_p_given_exemplars"] == first[0]["log_p_given_exemplars"]


def test_search_settings_of_requests_do_not_mix(bundle_path: Path) -> None:
    sent = body(*sets(2, K))
    kinds = [{}, {"strategy": "greedy"}, {"strategy": "beam"}, {"beam_size": 3}, {"candidates": 1}]
    kinds += [{"pmi_weight": 1.5}]
    alone = [post(bundle_path, sent | kind)[0].json() for kind in kinds]
    together = post(bundle_path, *(sent | kind for kind in kinds), wait_ms=200.0)
    assert [answer.json() for answer in together] == alone
    assert len({json.dumps(answer) for answer in alone}) >= 4
    assert len(alone[4]["units"][0]["candidates"]) == 1


def test_a_photo_that_is_not_square_is_cut_to_its_middle(bundle_path: Path) -> None:
    wide, mask = photo(3, 40, 61), blob(3, 40, 61)
    square, cut = wide[:, 10:50], mask[:, 10:50]
    assert cut.any()
    (first, second) = post(
        bundle_path,
        body(wide[None, None], mask[None, None]),
        body(np.ascontiguousarray(square)[None, None], cut[None, None]),
    )
    assert first.status_code == 200 and first.json() == second.json()


def test_no_mask_is_the_whole_image(bundle_path: Path) -> None:
    images, _ = sets(2, 2)
    everything = np.ones((2, 2, 40, 40), np.bool_)
    (first, second) = post(bundle_path, body(images, None), body(images, everything))
    assert first.json() == second.json()


def _bomb() -> bytes:
    """A PNG of a few hundred bytes that says it has 900 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    size = (30_000).to_bytes(4, "big") * 2
    header = chunk(b"IHDR", size + b"\x08\x02\x00\x00\x00")
    data = chunk(b"IDAT", zlib.compress(b"\0" * 100_000))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


GOOD = png(photo(0))


def _noise_jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(photo(1)).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (_bomb(), "Mpx is over the limit"),
        (GOOD[: len(GOOD) // 2], "truncated"),
        (_noise_jpeg()[:400], "truncated"),
        (b"", "empty"),
        (b"<svg/>", "a text file"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "a text file"),
        (bytes(range(256)) * 20, "not an image"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "broken"),
    ],
)
def test_files_that_are_no_usable_images_are_named(
    bundle_path: Path, data: bytes, why: str
) -> None:
    coded = {"evil\n\u202e.png": base64.b64encode(data).decode()}
    sent = {"files": coded, "units": [{"exemplars": [{"image": "evil\n\u202e.png"}]}]}
    mask = {"a": base64.b64encode(GOOD).decode(), "m": base64.b64encode(data).decode()}
    masked = {"files": mask, "units": [{"exemplars": [{"image": "a", "mask": "m"}]}]}
    for answer in post(bundle_path, sent, form(masked), masked):
        assert answer.status_code == 422, answer.text
        assert why in answer.json()["error"] and "the file '" in answer.json()["error"]


def test_damaged_files_are_refused_or_described_and_nothing_else(bundle_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(photo(2)).save(file, "WEBP")
    rng, sent = np.random.default_rng(0), []
    for number in range(60):
        whole = (GOOD, _noise_jpeg(), file.getvalue())[number % 3]
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 20)):
            damaged[place] = rng.integers(0, 256)
        name = "the.file"
        coded = {name: base64.b64encode(damaged).decode()}
        sent.append({"files": coded, "units": [{"exemplars": [{"image": name}]}]})
    answers = post(bundle_path, *sent)
    assert {answer.status_code for answer in answers} == {200, 422}
    assert all("the.file" in a.json()["error"] for a in answers if a.status_code == 422)


def _one(**more: Any) -> dict[str, Any]:
    return body(photo(0)[None, None], None) | more


def _sent(**unit: Any) -> dict[str, Any]:
    return _one(units=[{"exemplars": [{"image": "0-0.png", **unit}]}])


BAD_BODIES: list[tuple[Any, str]] = [
    (b"", "JSON"),
    (b"null", "an object"),
    (b"[]", "an object"),
    (b'{"units":' + b"[" * 100_000, "recursion"),
    (b'{"files":{"a":"\xff"}}', "JSON"),
    (b"\xef\xbb\xbf{}", "JSON"),
    (_one(units=[]), "units"),
    (_one(units=[{"exemplars": []}]), "exemplars"),
    (_one(units=[{"exemplars": [{"image": "0-0.png"}] * 101}]), "exemplars"),
    (_one(files={}), "files"),
    (_one(candidates=0), "candidates"),
    (_one(candidates=10**30), "candidates"),
    (_one(candidates=1.5), "candidates"),
    (_one(beam_size=101), "beam_size"),
    (_one(strategy="random"), "strategy"),
    (_one(legacy=True), "legacy"),
    (_one(pmi_weight=1e308), "pmi_weight"),
    (json.dumps(_one()).replace("{", '{"pmi_weight": NaN, ', 1).encode(), "pmi_weight"),
    (json.dumps(_one()).replace("{", '{"pmi_weight": 1e999, ', 1).encode(), "pmi_weight"),
    (_sent(image="other.png"), "other.png"),
    (_sent(mask="other.png"), "other.png"),
    (_sent(mask=7), "mask"),
    (_sent(image="\ud800"), "JSON"),
    (_one(units=_one()["units"] * 65), "at most 64"),
    (_one(files=_one()["files"] | {"spare": "AAAA"}), "spare"),
    (_one(files={"0-0.png": "not base64!"}), "base64"),
    (_one(files={"0-0.png": "ünïcode"}), "base64"),
]


@pytest.mark.parametrize(("sent", "why"), BAD_BODIES, ids=lambda value: str(value)[:30])
def test_bodies_that_do_not_fit_are_named(bundle_path: Path, sent: Any, why: str) -> None:
    (answer,) = post(bundle_path, sent if isinstance(sent, bytes) else json.dumps(sent).encode())
    assert answer.status_code == 422, answer.text
    assert why.lower() in answer.json()["error"].lower(), answer.text
    assert len(answer.text) < 1000


def test_forms_that_do_not_fit_are_named(bundle_path: Path) -> None:
    whole = form(_one())
    asked, file = whole
    for parts, why in (
        ([asked], "0-0.png"),
        ([file], "one part `request`"),
        ([asked, asked, file], "one part `request`"),
        ([asked, file, file], "two files are called"),
        ([asked, file, ("other", ("a", b"x", "text/plain"))], "'other'"),
        ([asked, ("files", ("", b"x", "image/png"))], "'files'"),
        ([("request", (None, b"{", "application/json")), file], "JSON"),
    ):
        (answer,) = post(bundle_path, parts)
        assert answer.status_code == 422 and why in answer.json()["error"], answer.text


def test_other_types_of_bodies_are_refused(bundle_path: Path) -> None:
    async def work() -> None:
        async with service(bundle_path) as client:
            for kind in ("text/plain", "", "application/x-www-form-urlencoded", "image/png"):
                answer = await client.post(
                    "/v1/describe", content=b"x", headers={"content-type": kind}
                )
                assert answer.status_code == 415, kind
            kind = "multipart/form-data"
            answer = await client.post("/v1/describe", content=b"x", headers={"content-type": kind})
            assert answer.status_code == 422

    asyncio.run(work())


def test_masks_that_do_not_fit_are_named(bundle_path: Path) -> None:
    image = photo(0)[None, None]
    for mask, why in (
        (blob(0, 40, 41), "41 by 40"),
        (np.zeros((40, 40), np.bool_), "nothing inside"),
        (np.eye(40, dtype=np.uint8), "nothing inside"),
    ):
        sent = body(image, None)
        sent["files"]["m"] = base64.b64encode(png(mask)).decode()
        sent["units"][0]["exemplars"][0]["mask"] = "m"
        (answer,) = post(bundle_path, sent)
        assert answer.status_code == 422 and why in answer.json()["error"], answer.text


def test_phrases_of_other_words_are_named(bundle_path: Path) -> None:
    for phrase, why in (("red xyzzy \u202e", "xyzzy"), ("   ", "needs words"), ("€" * 200, "€")):
        (answer,) = post(bundle_path, _one(phrases=["red dog", phrase]), path="/v1/score")
        assert answer.status_code == 422 and why in answer.json()["error"]


def test_thousands_of_images_are_refused_before_one_is_decoded(bundle_path: Path) -> None:
    files = {f"{i}.png": "AAAA" for i in range(3000)}
    units = [{"exemplars": [{"image": f"{i}.png"} for i in range(u, u + 60)]} for u in range(50)]
    (answer,) = post(bundle_path, {"files": files, "units": units})
    assert answer.status_code == 422 and "at most 960" in answer.json()["error"]


def test_info_says_what_runs(bundle_path: Path) -> None:
    async def work() -> None:
        async with service(bundle_path, read_only=True) as client:
            info = (await client.get("/v1/info")).json()
            assert info["bundle"]["name"] == "toy" and len(info["bundle"]["sha256"]) == 64
            assert info["device"]["value"] and info["device"]["reason"]
            assert info["ready"] and info["read_only"] and info["limits"]["max_units"] == 64
            answer = await client.post("/v1/describe", json=_one())
            assert answer.status_code == 200  # describing writes nothing
            page = (await client.get("/metrics")).text
            assert 'milan_onnx_units_total{work="describe"} 1.0' in page
            assert "milan_onnx_queue_units 0.0" in page
            assert 'milan_onnx_images_total{maps="encoded"} 1.0' in page

    asyncio.run(work())


def test_who_is_out_of_time_is_told(bundle_path: Path) -> None:
    sent = body(*sets(32, 2), beam_size=100)
    (answer,) = post(bundle_path, sent, timeout=0.05)
    assert answer.status_code == 503 and "no time" in answer.json()["error"]
    assert int(answer.headers["retry-after"]) >= 1


def test_consensus_is_told_with_confidence(tmp_path: Path, bundle_path: Path) -> None:
    sent = body(*sets(2, K)) | {"strategy": "consensus"}
    calibration = Calibration({"agreement": 3.0, "words": -0.1}, -1.0)
    able = toy_bundle(tmp_path, parts=PARTS, vectors=6, calibration=calibration).path
    (answer,) = post(able, sent)
    for unit in answer.json()["units"]:
        assert unit["confidence"] == unit["candidates"][0]["confidence"]
        assert all(0 < candidate["confidence"] < 1 for candidate in unit["candidates"])
    (refused,) = post(bundle_path, sent)
    assert refused.status_code == 422
    assert "needs word vectors" in refused.text
