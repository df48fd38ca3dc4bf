"""``audit_run``: a run against a policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from milan_onnx.applications.audit.hits import Looker
from milan_onnx.applications.audit.importances import Importances, read_importances
from milan_onnx.applications.audit.judging import DIGITS, judge
from milan_onnx.applications.audit.policy import (
    SEVERITIES,
    Policy,
    Rule,
    Severity,
    default_policy,
    read_policy,
)
from milan_onnx.applications.audit.result import (
    Audit,
    Comparison,
    Concept,
    Hit,
    Verdict,
    concepts_of,
)
from milan_onnx.applications.phrases import Scoring
from milan_onnx.applications.reopened import check_manifest, choose_places, run_places
from milan_onnx.applications.standing import Standing, standings_of
from milan_onnx.choice import Choice
from milan_onnx.errors import BadInput, RunError, UsageError
from milan_onnx.labels import UnitLabel, has_confidence
from milan_onnx.progress import Reporter, Silent
from milan_onnx.reporting import display_names
from milan_onnx.run import Run, load_run

NAMED = 4
"""Terms that a note names; the JSON has all."""


@dataclass(frozen=True)
class AuditOptions:
    """How a run is audited."""

    importance: Path | None = None
    """File of unit importances, for rules with max_importance."""

    baseline: Path | None = None
    """Run of another network to compare with."""

    fail_on: Severity = "error"
    """The least severity at which a broken rule breaks the audit."""

    scoring: Scoring = field(default_factory=Scoring)
    """Where the run's photos and captioner are, and on what phrases are scored."""


def audit_run(
    run: str | Path | Run,
    policy: str | Path | Policy | None = None,
    *,
    options: AuditOptions | None = None,
    reporter: Reporter | None = None,
) -> Audit:
    """Hold a run against a policy (None: the one that ships).

    Raises the errors of `milan_onnx.errors`: RunError for a damaged run, BadInput for a policy or
    importances that are not understood, UsageError for a rule that wants what was not given. A
    broken policy is no error, but told by ``broken``.
    """
    options, say = options or AuditOptions(), reporter or Silent()
    if options.fail_on not in SEVERITIES:
        raise UsageError(f"there is no severity {options.fail_on}", hint=", ".join(SEVERITIES))
    rules = _policy(policy, say)
    here = _opened(run)
    there = None if options.baseline is None else _opened(options.baseline)
    _check_wants(rules.rules, here, options)
    for each in (here, there) if there else (here,):
        _check_layers(rules.rules, each)
    importances = (
        read_importances(options.importance, run_places(here)) if options.importance else None
    )
    side, other = _Side(here, rules, options.scoring, importances, say), None
    notes = [*side.notes]
    if there is not None:
        other = _Side(there, rules, _scoring_there(here, there, options.scoring), None, say)
        notes += _differences(here, there)
    for note in notes:
        say.note(note)
    return Audit(
        model=_model(here),
        folder=str(here.path or ""),
        policy={"source": rules.source, "sha256": rules.sha256},
        verdicts=tuple(_verdict(rule, side, other) for rule in rules.rules),
        fail_on=options.fail_on,
        baseline=None if there is None else _model(there),
        phrases=side.phrases,
        notes=tuple(notes),
    )


def _policy(given: str | Path | Policy | None, say: Reporter) -> Policy:
    if isinstance(given, Policy):
        return given
    if given is not None:
        return read_policy(Path(given))
    say.choice("policy", Choice("the default one", "no --policy; --print-policy shows it"))
    return default_policy()


def _opened(run: str | Path | Run) -> Run:
    opened = run if isinstance(run, Run) else load_run(run)
    check_manifest(opened)
    try:
        _model(opened)
        display_names(opened)
    except (KeyError, TypeError) as error:
        raise RunError(
            f"the manifest of the run {opened.path or ''} lacks {error}",
            hint="describe again, or restore it from a backup",
        ) from error
    return opened


def _model(run: Run) -> dict[str, str]:
    return {key: str(run.manifest["model"][key]) for key in ("name", "sha256")}


def _check_wants(rules: Sequence[Rule], run: Run, options: AuditOptions) -> None:
    """Raise UsageError for a rule that wants what was not given."""
    tested = any(label.validity is not None for label in run.labels)
    judged = tested or has_confidence(run.labels)
    for rule in rules:
        wants = set(rule.limits)
        if "max_importance" in wants and options.importance is None:
            _refuse(rule, "importances", "give --importance FILE")
        if "max_increase" in wants and options.baseline is None:
            _refuse(rule, "a baseline", "give --baseline RUN")
        on_validity = "min_correlation" in wants or rule.min_validity is not None
        if (on_validity and not tested) or ("max_abstained" in wants and not judged):
            _refuse(rule, "labels that were tested", "describe with --validity, and more photos")


def _check_layers(rules: Sequence[Rule], run: Run) -> None:
    """Raise UsageError for a rule on a layer that the run does not have."""
    places = run_places(run)
    for rule in rules:
        try:
            choose_places(places, rule.layers)
        except UsageError as error:
            name = f"the rule {rule.name!r} does not fit {run.path or 'the run'}"
            raise UsageError(f"{name}: {error.message}", hint=error.hint) from error


def _refuse(rule: Rule, what: str, hint: str) -> None:
    raise UsageError(f"the rule {rule.name!r} wants {what}", hint=hint)


class _Side:
    """One network under the policy."""

    def __init__(
        self,
        run: Run,
        policy: Policy,
        scoring: Scoring,
        importances: Importances | None,
        say: Reporter,
    ) -> None:
        scored = [rule for rule in policy.rules if rule.groups and "phrases" in rule.look]
        names = dict.fromkeys(name for rule in scored for name in rule.groups)
        groups = [policy.lexicon[name] for name in names]
        self._standings = standings_of(run, groups, policy.lexicon, scoring, say) if groups else {}
        _check_known(scored, self._standings)
        self._run = run
        self._looker = Looker(run, policy.lexicon, self._standings, importances)

    @property
    def notes(self) -> Iterator[str]:
        """What phrase scoring could not ask."""
        for name, standing in self._standings.items():
            if standing.unknown:
                asked = f"{len(standing.known)} of {len(standing.known) + len(standing.unknown)}"
                more = " and others" if len(standing.unknown) > NAMED else ""
                missing = ", ".join(standing.unknown[:NAMED])
                yield f"{name}: the captioner can say {asked} terms, and not {missing}{more}"
            if standing.everywhere:
                yield f"{name}: its phrases stand high in most units, and tell them not apart"

    @property
    def phrases(self) -> dict[str, dict[str, Sequence[str]]]:
        """The terms that the captioner can say, and those that it can not, by group."""
        return {
            name: {"known": standing.known, "unknown": standing.unknown}
            for name, standing in self._standings.items()
        }

    def labels(self, rule: Rule) -> list[UnitLabel]:
        """The units that a rule is on."""
        tensors = {place.tensor for place in choose_places(run_places(self._run), rule.layers)}
        return [label for label in self._run.labels if label.layer in tensors]

    def hits(self, rule: Rule) -> tuple[Hit, ...]:
        """Those of its groups."""
        return self._looker.hits(rule, {label.layer for label in self.labels(rule)})


def _check_known(rules: Sequence[Rule], standings: Mapping[str, Standing]) -> None:
    """Raise BadInput for a rule that looks for what the captioner has no word for."""
    for rule in rules:
        mute = [name for name in rule.groups if not standings[name].known]
        if mute and rule.look == ("phrases",):
            raise BadInput(
                f"the rule {rule.name!r} looks for {', '.join(mute)} by phrases only, and the "
                "captioner knows none of the words",
                hint="give the group other words, or look at labels too",
            )


def _verdict(rule: Rule, here: _Side, there: _Side | None) -> Verdict:
    labels = here.labels(rule)
    if not rule.groups:
        return judge(rule, labels, ())
    hits = here.hits(rule)
    if there is None:
        return judge(rule, labels, hits)
    others = there.hits(rule)
    return judge(rule, labels, hits, _compared(hits, len(labels), others, len(there.labels(rule))))


def _compared(
    hits: Sequence[Hit], units: int, others: Sequence[Hit], other_units: int
) -> Comparison:
    """Hits of both networks, by concept: units have no counterpart in another network."""
    mine, theirs = concepts_of(hits), concepts_of(others)
    order = sorted({*mine, *theirs}, key=lambda pair: (-mine[pair], -theirs[pair], pair))
    increase = len(hits) / max(1, units) - len(others) / max(1, other_units)
    return Comparison(
        units=other_units,
        hits=len(others),
        increase=round(increase, DIGITS),
        concepts=tuple(Concept(*pair, mine[pair], theirs[pair]) for pair in order),
    )


def _scoring_there(here: Run, there: Run, scoring: Scoring) -> Scoring:
    """The baseline's photos and captioner: the given ones where they are the same."""
    photos, captioner = "probe", "bundle"

    def same(part: str) -> bool:
        return bool(here.manifest[part]["sha256"] == there.manifest[part]["sha256"])

    return replace(
        scoring,
        images=scoring.images if same(photos) else None,
        bundle=scoring.bundle if same(captioner) else None,
    )


def _differences(here: Run, there: Run) -> Iterator[str]:
    """Why the baseline's figures may differ for another reason than the network."""
    for part, name in (("probe", "probe images"), ("bundle", "captioner")):
        if here.manifest[part]["sha256"] != there.manifest[part]["sha256"]:
            yield f"the baseline was described with another {name}: compare with care"
