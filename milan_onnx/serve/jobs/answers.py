"""The shapes of answers about runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

Figure = float | None
Confidence = Annotated[
    float | None,
    Field(description="Probability that a person would call it right, 0..1; null: not calibrated."),
]
EXAMPLE_ID = "20261123-204501-9f86d081"


class Progress(BaseModel):
    """How far a job is in its stage."""

    stage: str = Field(description="scan, encode, describe, validate, ...")
    done: int = Field(description="Items done.")
    total: int = Field(description="Items in all.")
    unit: str = Field(description="What the items are.")
    rate: float = Field(description="Items a second.")
    left: float | None = Field(description="Seconds that the rest of the stage will take.")


class Failure(BaseModel):
    """Why a job failed."""

    error: str = Field(description="One sentence.")
    hint: str = Field(description="The mend; may be empty.")


class Summary(BaseModel):
    """What a run found, in figures."""

    layers: int
    units: int
    described: int
    abstained: int


class RunAnswer(BaseModel):
    """A run, or the job that makes it."""

    id: str = Field(description="Its name in addresses.")
    name: str = Field(description="What people call it.")
    source: Literal["job", "folder"] = Field(
        description="A job of this service, or a run that the command line wrote."
    )
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    position: int | None = Field(description="Jobs that are before it, where it is queued.")
    model: str | None = Field(description="The model, as it was given.")
    layers: list[str] | None = Field(description="As they were given; None: the deepest one.")
    images: str | None = Field(description="As they were given; None: the built-in set.")
    options: dict[str, Any] = Field(description="What was set.")
    created: str = Field(description="UTC, ISO 8601.")
    started: str | None = Field(description="When its last process was started.")
    finished: str | None
    starts: int = Field(description="Processes started for it: more than one where interrupted.")
    progress: Progress | None
    error: Failure | None
    summary: Summary | None
    links: dict[str, str] = Field(description="Where more of it is.")


class RunList(BaseModel):
    """Runs, newest first."""

    total: int
    offset: int
    limit: int
    runs: list[RunAnswer]


class ValidityAnswer(BaseModel):
    """How well a label predicts its unit's activation on held-out photos."""

    correlation: Figure
    auprc: Figure
    shuffled_correlation: Figure
    shuffled_auprc: Figure
    images: int


class UnitFound(BaseModel):
    """A unit that a search found."""

    layer: str = Field(description="The tensor.")
    layer_name: str = Field(description="What people call the layer.")
    unit: int
    description: str | None
    confidence: Confidence
    pmi: Figure
    flags: list[str]
    validity: ValidityAnswer | None
    said_by: int = Field(
        description="Whose words were found: 0 the description's, n those of its n-th candidate."
    )
    candidate: str | None = Field(description="That candidate.")


class UnitList(BaseModel):
    """Units found, best first."""

    total: int
    offset: int
    limit: int
    units: list[UnitFound]


class CandidateAnswer(BaseModel):
    """A description with its scores."""

    description: str
    confidence: Confidence
    pmi: Figure
    log_p_given_exemplars: Figure
    log_p: Figure


class ExemplarAnswer(BaseModel):
    """A photo that excites the unit."""

    image: int = Field(description="Its position in the probe set's listing.")
    name: str
    activation: Figure
    masked: str = Field(description="Address of the photo, its exciting region bright.")
    photo: str = Field(description="Address of the photo alone.")
    mask: str = Field(description="Address of the region alone, PNG.")


class UnitAnswer(BaseModel):
    """All that is said of one unit."""

    schema_version: int
    model: str = Field(description="Hexadecimal SHA-256 of the model file.")
    layer: str
    layer_name: str
    unit: int
    description: str | None
    confidence: Confidence
    pmi: Figure
    log_p_given_exemplars: Figure
    log_p: Figure
    threshold: Figure
    flags: list[str]
    validity: ValidityAnswer | None
    candidates: list[CandidateAnswer]
    exemplars: list[ExemplarAnswer]


class LayerSummaryAnswer(BaseModel):
    """A layer of a run."""

    layer: str
    name: str = Field(description="What people call it.")
    units: int
    described: int
    distinct: int
    confidence: Figure = Field(description="Mean of its labels; null where they have none.")
    repeated: list[tuple[str, int]] = Field(description="Descriptions that come up again.")


class AboutRun(BaseModel):
    """What a run is made of."""

    facts: dict[str, str]
    warnings: list[str]
    layers: list[LayerSummaryAnswer]


class ModelLayer(BaseModel):
    """A layer of a model that can be described."""

    tensor: str
    module: str | None
    op: str
    units: int | None
    shape: list[str]


class ModelLayers(BaseModel):
    """The layers of a model, in the order of its graph."""

    path: str
    layers: list[ModelLayer]


class Places(BaseModel):
    """What lies in the allowed folders."""

    models: list[str] = Field(description="ONNX files.")
    photos: list[str] = Field(description="Folders of photos, and archives.")
    read_only: bool = Field(description="Whether no run can be started here.")


class ReportLink(BaseModel):
    """Where a browser may open the report."""

    href: str
    seconds: int = Field(description="How long it may be opened.")
