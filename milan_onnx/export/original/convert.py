"""A published checkpoint as a bundle.

The graphs are those of every bundle. What differs: weights are kept as they are (float32), masks
are resized as the paper's code does, no token is forbidden, and text is written in sentences.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from milan_onnx import bundle
from milan_onnx.bundle import Bundle, SearchDefaults
from milan_onnx.export import onnx_export
from milan_onnx.export.backbones import Backbone, build_backbone
from milan_onnx.export.captioner import Captioner, CaptionerConfig
from milan_onnx.export.language_model import LanguageModel, LanguageModelConfig
from milan_onnx.export.original.checkpoint import (
    BACKBONE,
    FEATURES,
    LM,
    Checkpoint,
    read_checkpoint,
)
from milan_onnx.export.verify import Agreement, verify
from milan_onnx.files import staged_folder

EXEMPLARS = 15
# Where the original's modules hold a layer inside a Sequential.
CAPTIONER = {
    "init_h.0.": "init_h.",
    "init_c.0.": "init_c.",
    "attend.output.0.": "attend.output.",
    "feature_gate.0.": "feature_gate.",
    "output.1.": "output.",
}
CARD = """# {name}

Converted from `{file}` (sha256 {sha256}), a captioner of MILAN
(Hernandez et al., ICLR 2022, github.com/evandez/neuron-descriptions, MIT).

- Encoder: {encoder}, {features} features an exemplar.
- Captioner: state {hidden}, attention {attention}, word vectors {embedding}.
- Language model: {lm_layers} layers, state {lm_hidden}.
- Vocabulary: {words} words.
- Search: {search}.

Graphs against PyTorch, largest difference: {agreement}.

The weights are what the file held; who trained them, on what and under which licence, it does not
say. Published ones were trained on MILANNOTATIONS.
"""


def convert(
    path: Path,
    out: Path,
    *,
    legacy: bool = False,
    allow_unexpected: bool = False,
    name: str = "",
    overwrite: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Bundle:
    """Convert a checkpoint of the original to a bundle at ``out``.

    ``legacy`` makes its search repeat the quirks of the paper's code. Raises BadInput where the
    checkpoint cannot be used, MilanError where the graphs do not do what PyTorch does; nothing is
    left at ``out`` then.
    """
    found = read_checkpoint(path, allow_unexpected=allow_unexpected)
    for note in found.notes:
        say(note)
    backbone, captioner, lm = modules(found)
    search = SearchDefaults(
        found.beam_size, found.length, found.temperature, legacy=legacy, strategy="rerank"
    )
    say(f"{found.encoder}, {len(found.words)} words; exporting")
    with staged_folder(out, overwrite=overwrite, marker=bundle.MANIFEST, what="bundle") as folder:
        encoder = onnx_export.encoder_model(backbone.encoder)
        info = onnx_export.BundleInfo(
            name or path.stem,
            found.sha256[:12],
            "that of the checkpoint; see MODEL_CARD.md",
            "",
            EXEMPLARS,
            search,
            {"checkpoint": path.name, "sha256": found.sha256, "notes": list(found.notes)},
            style="sentences",
            forbid_specials=False,
            rounded=False,
        )
        made = onnx_export.write_bundle(
            folder, backbone, [captioner], lm, found.words, info, encoder
        )
        agreement = verify(made, backbone, [captioner], lm)
        say(f"against PyTorch: {agreement}")
        card = _card(found, made, agreement)
        (folder / bundle.MODEL_CARD).write_text(card, encoding="utf-8")
        bundle.write_manifest(folder, made.manifest)
    return bundle.load_bundle(out)


def modules(found: Checkpoint) -> tuple[Backbone, Captioner, LanguageModel]:
    """The checkpoint's networks in evaluation mode."""
    backbone = build_backbone(found.encoder, found.part(BACKBONE))
    backbone.encoder.mean.copy_(found.state["encoder.mean"] * 255)
    backbone.encoder.std.copy_(found.state["encoder.std"] * 255)
    captioner = Captioner(
        CaptionerConfig(
            features=FEATURES[found.encoder],
            vocabulary=found.vocabulary,
            embedding=found.embedding,
            hidden=found.hidden,
            attention=found.attention,
        )
    )
    captioner.load_state_dict(_captioner_state(found))
    lm = LanguageModel(
        LanguageModelConfig(found.vocabulary, found.lm_embedding, found.lm_hidden, found.lm_layers)
    )
    lm.load_state_dict(_lm_state(found))
    return backbone, captioner.eval(), lm.eval()


def _captioner_state(found: Checkpoint) -> dict[str, Tensor]:
    state = {}
    for name, value in found.state.items():
        if not name.startswith(("encoder.", LM)):
            prefix = next((old for old in CAPTIONER if name.startswith(old)), "")
            state[CAPTIONER.get(prefix, "") + name.removeprefix(prefix)] = value.float()
    return state


def _lm_state(found: Checkpoint) -> dict[str, Tensor]:
    state = {}
    for name, value in found.part(LM).items():
        if name.startswith("lstm."):
            kind, _, layer = name.removeprefix("lstm.").rpartition("_l")
            name = f"cells.{layer}.{kind}"
        state[name.replace("output.0.", "output.")] = value.float()
    return state


def _card(found: Checkpoint, made: Bundle, agreement: Agreement) -> str:
    search = made.manifest.search
    quirks = ", with the quirks of the paper's code" if search.legacy else ""
    return CARD.format(
        name=made.manifest.name,
        file=found.path.name,
        sha256=found.sha256,
        encoder=found.encoder,
        features=FEATURES[found.encoder],
        hidden=found.hidden,
        attention=found.attention,
        embedding=found.embedding,
        lm_layers=found.lm_layers,
        lm_hidden=found.lm_hidden,
        words=len(found.words),
        search=f"beam {search.beam_size}, λ {search.pmi_weight:g}, {search.length} tokens{quirks}",
        agreement=agreement,
    )
