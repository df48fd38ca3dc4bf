"""What is sent and what is answered. The schema of the routes is made of these."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.config import JsonDict

from milan_onnx.bundle import Strategy

FileName = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Phrase = Annotated[str, StringConstraints(min_length=1, max_length=200)]
MOST_EXEMPLARS = 100
MOST_BEAM = 100
MOST_CANDIDATES = 50
DOT = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mM8ISfHgA0wMeAAg1MCANDKARQfGKMRAAAA"
    "AElFTkSuQmCC"
)
"""An image, for the examples: 8 by 8 red pixels."""


SHA = "08ede63989fd0b692824cdbebcbd67ed95f479e2d2ac73be2a9579e269180e4b"
SCORES = {"pmi": 1.53, "log_p_given_exemplars": -0.45, "log_p": -6.58}
DESCRIPTION: JsonDict = {"description": "red areas", "confidence": 0.71, **SCORES}


class Sent(BaseModel):
    """What a client sends: names that are not known are refused, not overlooked."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ExemplarSent(Sent):
    """A region that excites the unit."""

    image: FileName = Field(description="Name of an image among the files.")
    mask: FileName | None = Field(
        None,
        description="Name of its mask among the files, of the image's size; white is inside. "
        "Null: the whole image.",
    )


class UnitSent(Sent):
    """A unit: its exemplars."""

    exemplars: list[ExemplarSent] = Field(
        min_length=1, max_length=MOST_EXEMPLARS, description="As many as you like; the paper: 15."
    )


class Files(Sent):
    """Files that come inside the JSON."""

    files: dict[FileName, str] = Field(
        min_length=1,
        description="Images and masks by name, base64 of PNG, JPEG, WebP, GIF, BMP, TIFF or PPM.",
    )


class Asked(Sent):
    """What any request about units has."""

    units: list[UnitSent] = Field(min_length=1, description="They are answered in this order.")
    pmi_weight: float | None = Field(
        None, ge=-100, le=100, description="λ of log p(d|E) - λ log p(d). Null: the bundle's."
    )


class DescribeForm(Asked):
    """Exemplar sets to describe."""

    candidates: int = Field(5, ge=1, le=MOST_CANDIDATES, description="Descriptions told a unit.")
    strategy: Strategy | None = Field(
        None,
        description="Beam search and then agreement (consensus) or PMI (rerank), beam search "
        "alone, or greedy. Null: the bundle's.",
    )
    beam_size: int | None = Field(
        None, ge=1, le=MOST_BEAM, description="Hypotheses of the search. Null: the bundle's."
    )

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"units": [{"exemplars": [{"image": "a.png"}]}], "candidates": 2}]
        }
    )


class DescribeBody(DescribeForm, Files):
    """Exemplar sets to describe, with their images and masks."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "files": {"a.png": DOT},
                    "units": [{"exemplars": [{"image": "a.png"}]}],
                    "candidates": 2,
                }
            ]
        }
    )


class ScoreForm(Asked):
    """Phrases to score against exemplar sets."""

    phrases: list[Phrase] = Field(
        min_length=1, description="Each is scored for each unit; all its words must be known."
    )

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"units": [{"exemplars": [{"image": "a.png"}]}], "phrases": ["red areas"]}]
        }
    )


class ScoreBody(ScoreForm, Files):
    """Phrases to score against exemplar sets, with their images and masks."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "files": {"a.png": DOT},
                    "units": [{"exemplars": [{"image": "a.png"}]}],
                    "phrases": ["red areas"],
                }
            ]
        }
    )


class DescriptionTold(BaseModel):
    """A description that the search finished, with its confidence, and its scores in nats."""

    description: str = Field(description="The words.")
    confidence: float | None = Field(
        description="Probability that a person would call it right, 0..1; null: not calibrated."
    )
    pmi: float = Field(description="log p(d|E) - λ log p(d).")
    log_p_given_exemplars: float = Field(description="log p(d|E), of the captioner.")
    log_p: float = Field(description="log p(d), of the language model.")


class UnitDescribed(BaseModel):
    """What is said of one unit."""

    description: str | None = Field(
        description="The best candidate; null where the search found no words."
    )
    confidence: float | None = Field(description="Its confidence.")
    pmi: float | None = Field(description="Its score.")
    log_p_given_exemplars: float | None = Field(description="Its log p(d|E).")
    log_p: float | None = Field(description="Its log p(d).")
    candidates: list[DescriptionTold] = Field(description="The best, best first.")


class Described(BaseModel):
    """Descriptions of exemplar sets."""

    bundle: str = Field(description="SHA-256 of the captioner's bundle.")
    units: list[UnitDescribed] = Field(description="In the order of the request.")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "bundle": SHA,
                    "units": [{**DESCRIPTION, "candidates": [DESCRIPTION]}],
                }
            ]
        }
    )


class PhraseScored(BaseModel):
    """Scores of a phrase for one unit, in nats."""

    phrase: str = Field(description="As it was sent.")
    pmi: float = Field(description="log p(d|E) - λ log p(d).")
    log_p_given_exemplars: float = Field(description="log p(d|E), of the captioner.")
    log_p: float = Field(description="log p(d), of the language model.")


class UnitScored(BaseModel):
    """Scores for one unit."""

    phrases: list[PhraseScored] = Field(description="In the order of the request.")


class Scored(BaseModel):
    """Scores of phrases for exemplar sets."""

    bundle: str = Field(description="SHA-256 of the captioner's bundle.")
    pmi_weight: float = Field(description="λ of log p(d|E) - λ log p(d).")
    units: list[UnitScored] = Field(description="In the order of the request.")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "bundle": SHA,
                    "pmi_weight": 0.3,
                    "units": [{"phrases": [{"phrase": "red areas", **SCORES}]}],
                }
            ]
        }
    )


class BundleTold(BaseModel):
    """The captioner."""

    name: str = Field(description="Its name.")
    version: str = Field(description="Version of the weights.")
    sha256: str = Field(description="Names the weights exactly.")
    license: str = Field(description="Of the weights.")
    image_size: int = Field(description="Side of the squares that images become, pixels.")
    exemplars: int = Field(description="Exemplars a unit that it was trained with.")


class ChoiceTold(BaseModel):
    """Something that was chosen."""

    value: str = Field(description="What.")
    reason: str = Field(description="Why.")


class Info(BaseModel):
    """What this service is."""

    version: str = Field(description="Of milan-onnx.")
    ready: bool = Field(description="Whether the captioner is loaded and warm.")
    bundle: BundleTold | None = Field(description="The captioner; null until it is loaded.")
    device: ChoiceTold | None = Field(description="Where it runs; null until it is loaded.")
    threads: int | None = Field(description="Slices of a batch under way at once.")
    read_only: bool = Field(description="Whether jobs and deletions are refused.")
    limits: dict[str, int | float] = Field(description="See docs/serve.md.")


def request_body(whole: type[BaseModel], form: type[BaseModel]) -> dict[str, Any]:
    """The ``openapi_extra`` of a route that takes JSON with files in it, or a form with files."""
    parts = {
        "type": "object",
        "properties": {
            "request": inlined(form),
            "files": {
                "type": "array",
                "items": {"type": "string", "format": "binary"},
                "description": "Images and masks; each part's filename is its name.",
            },
        },
        "required": ["request", "files"],
        "additionalProperties": False,
    }
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": inlined(whole)},
                "multipart/form-data": {
                    "schema": parts,
                    "encoding": {"request": {"contentType": "application/json"}},
                },
            },
        }
    }


def inlined(model: type[BaseModel]) -> dict[str, Any]:
    """A model's JSON Schema without references to other parts of it."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})

    def resolved(value: Any) -> Any:
        if isinstance(value, list):
            return [resolved(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            return resolved(parts[value["$ref"].rpartition("/")[2]])
        return {key: resolved(item) for key, item in value.items()}

    made: dict[str, Any] = resolved(schema)
    return made
