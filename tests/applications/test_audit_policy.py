"""Policies are read strictly, and lexicons tell what they name from what only looks like it."""

from __future__ import annotations

from pathlib import Path

import pytest

from milan_onnx.applications.audit.importances import read_importances
from milan_onnx.applications.audit.policy import (
    LOOKS,
    Policy,
    default_policy,
    default_policy_text,
    parse_policy,
    read_policy,
)
from milan_onnx.applications.lexicon import parse_lexicon, shipped_lexicon
from milan_onnx.applications.phrases import Spellings
from milan_onnx.applications.reopened import Place
from milan_onnx.errors import BadInput
from milan_onnx.wording import normalise

GROUPS = {
    "people", "faces", "gender", "skin", "age", "religion", "race", "nudity", "text",
    "watermark", "location",
}  # fmt: skip


def policy(text: str, folder: Path = Path()) -> Policy:
    return parse_policy(f"version = 1\n{text}".encode(), "policy.toml", folder)


def rule(text: str) -> Policy:
    return policy(f'[[rule]]\nname = "r"\n{text}')


def faults(text: str) -> str:
    with pytest.raises(BadInput) as caught:
        policy(text)
    assert "policy.toml" in caught.value.message
    return caught.value.message


# --- lexicons ----------------------------------------------------------------------------------


def test_the_lexicons_that_ship_are_whole() -> None:
    assert set(shipped_lexicon("audit")) == GROUPS
    for name in ("audit", "everyday"):
        for group in shipped_lexicon(name).values():
            assert len(group.terms) == len({normalise(word) for word in group.words})
            for word in group.words:
                assert group.named(word), word


def test_what_groups_are_against_is_there_and_of_no_group() -> None:
    audited, rivals = shipped_lexicon("audit"), shipped_lexicon("rivals")
    for group in audited.values():
        assert set(group.against) <= audited.keys() | rivals.keys()
    for rival in rivals.values():
        for word in rival.words:
            assert not any(group.named(word) for group in audited.values()), word


def test_everyday_things_are_of_no_group() -> None:
    audited = shipped_lexicon("audit").values()
    for group in shipped_lexicon("everyday").values():
        for word in group.words:
            assert not any(other.named(word) for other in audited), word


def test_exceptions_cover_what_only_looks_like_the_word() -> None:
    faces = parse_lexicon('[f]\nwords = ["face"]\nexcept = ["clock face"]', "x")["f"]
    assert faces.named("round clock faces") == ()
    assert faces.named("clock faces and human faces") == ("face",)
    assert faces.named("surfaces") == ()


@pytest.mark.parametrize("text", ["people near trees", "a Person", "persons"])
def test_plurals_and_spelling_are_folded(text: str) -> None:
    assert shipped_lexicon("audit")["people"].named(text)


def test_spellings_are_those_that_the_captioner_knows() -> None:
    words = Spellings(["face", "faces", "human", "women", "gray", "areas", "half-tracks"])
    assert words.of("face") == ("face", "faces")
    assert words.of("woman") == ("women",)
    assert words.of("human face") == ("human face", "human faces")
    assert words.of("grey area") == ("gray areas",)
    assert words.of("half-tracks") == ("half-tracks",)
    assert words.of("nun") == ()


# --- policies ----------------------------------------------------------------------------------


def test_the_default_policy_is_a_policy() -> None:
    found = default_policy()
    assert {name for each in found.rules for name in each.groups} == GROUPS
    assert {each.severity for each in found.rules} == {"error", "warning", "note"}
    assert parse_policy(default_policy_text().encode(), "again", Path()).rules == found.rules


def test_a_rule_has_defaults_and_shares_in_two_ways() -> None:
    found = rule('groups = ["faces", "faces"]\nmax_share = "2.5%"').rules[0]
    assert found.groups == ("faces",)
    assert found.look == LOOKS
    assert found.severity == "error"
    assert found.limits == {"max_share": 0.025}
    assert rule('groups = ["faces"]\nmax_share = 0.025').rules[0].limits == found.limits


def test_a_rule_without_groups_is_on_labels() -> None:
    found = rule('max_abstained = "50%"\nmin_correlation = 0.1\nseverity = "note"').rules[0]
    assert not found.groups
    assert found.limits == {"max_abstained": 0.5, "min_correlation": 0.1}


def test_groups_are_added_and_extended(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[cats]\nwords = ["cat"]\n[skin]\nwords = ["hide"]\n')
    text = """
lexicon = "mine.toml"
[groups.faces]
extend = true
words = ["selfie stick"]
[groups.dogs]
words = ["dog"]
[[rule]]
name = "r"
groups = ["cats", "dogs", "faces"]
max_units = 0
"""
    found = policy(text, tmp_path).lexicon
    assert found["faces"].named("selfie sticks") and found["faces"].named("face")
    assert found["cats"].named("cats") and found["dogs"].named("dogs")
    assert found["skin"].words == ("hide",)


def test_all_faults_are_named_at_once_with_their_place() -> None:
    said = faults(
        """
colour = 1
[[rule]]
name = "one"
groups = ["faces", "fases"]
max_shar = 3
severity = "bad"
[[rule]]
groups = ["skin"]
max_share = "150%"
look = ["captions"]
[[rule]]
name = "three"
max_units = 3
"""
    )
    for part in (
        "unknown key 'colour'",
        "rule 1 (one): no group 'fases'",
        "rule 1 (one): unknown key 'max_shar'",
        "rule 1 (one): severity must be one of error, warning, note",
        "rule 1 (one): it has no limit",
        "rule 2: it has no name",
        "rule 2: max_share must be a share",
        "rule 2: look must be a list of label, candidates, phrases",
        "rule 3 (three): max_units is nothing for a rule with no groups",
    ):
        assert part in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it has no [[rule]]"),
        ('[[rule]]\nname = "a"\nmax_dead = 0.1\n[[rule]]\nname = "a"\nmax_dead = 0.2', "two rules"),
        ('[[rule]]\nname = "a"\ngroups = []\nmax_units = 1', "groups must be a list"),
        ('[[rule]]\nname = "a"\ngroups = ["text"]\nmax_units = true', "max_units must be a whole"),
        ('[[rule]]\nname = "a"\ngroups = ["text"]\nmax_units = -1', "max_units must be a whole"),
        ('[[rule]]\nname = "a"\ngroups = ["text"]\nmax_importance = nan', "must be a number"),
        ('[[rule]]\nname = "a"\nmax_dead = "x%"', "max_dead must be a share"),
        ('[[rule]]\nname = "a"\nmax_dead = "5"', "max_dead must be a share"),
        ('[[rule]]\nname = "a"\nmin_correlation = 2', "min_correlation must be a correlation"),
        ('[[rule]]\nname = "a"\ngroups = ["text"]\nmax_units = 1\nfalse_alarms = 0', "between 0"),
        ("lexicon = 3", "lexicon must be the name"),
        ("groups = 3", "groups must be tables"),
        ('[groups.x]\nwords = ["a"]\nagainst = ["gone"]', "x is against gone, which is no group"),
        ('[groups.x]\nextend = true\nwords = ["a b"]', "no group x to extend"),
        ('[groups.x]\nextend = 1\nwords = ["a b"]', "extend of the group x"),
        ("[groups.x]\nwords = []", "no list of words"),
        ('[groups.x]\nwords = ["a"]\nsound = "b"', "unknown key sound"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, said: str) -> None:
    assert said in faults(text)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"version = 2", "version must be 1"),
        (b"version = true", "version must be 1"),
        (b"", "version must be 1"),
        (b"[[rule", "is not TOML"),
        (b"\xff\xfe", "is not TOML"),
    ],
)
def test_other_files_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        parse_policy(data, "policy.toml", Path())


def test_a_policy_or_lexicon_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot read the policy .*none\.toml"):
        read_policy(tmp_path / "none.toml")
    path = tmp_path / "policy.toml"
    path.write_text('version = 1\nlexicon = "gone.toml"\n[[rule]]\nname = "a"\nmax_dead = 0.1\n')
    with pytest.raises(BadInput, match=r"gone\.toml"):
        read_policy(path)


# --- importances ---------------------------------------------------------------------------------


PLACES = [Place("relu", ("relu", "features.3"), 2)]


@pytest.mark.parametrize(
    "text",
    [
        "layer,unit,importance\nrelu,0,0.5\nother,0,1\nfeatures.3,1,-2e-3\n",
        "\ufeffunit,importance,layer,more\n0,0.5,relu,x\n1,-0.002,relu,y\n",
        '[{"layer": "relu", "unit": 0, "importance": 0.5},'
        ' {"layer": "relu", "unit": 1, "importance": -0.002}]',
    ],
)
def test_importances_are_read_by_tensor_and_unit(tmp_path: Path, text: str) -> None:
    path = tmp_path / "importance"
    path.write_text(text, encoding="utf-8")
    assert read_importances(path, PLACES) == {("relu", 0): 0.5, ("relu", 1): -0.002}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no unit of the run's layers"),
        ("layer,unit,importance\nother,0,1\n", "no unit of the run's layers"),
        ("layer,unit,importance\nrelu,0,1\nrelu,0,2\n", "row 2 of .* as one before"),
        ("layer,unit\nrelu,0\n", "row 1 of .* has no 'importance'"),
        ("layer,unit,importance\nrelu,x,1\n", "row 1 of .* is damaged"),
        ("layer,unit,importance\nrelu,0\n", "row 1 of .* is damaged"),
        ("layer,unit,importance\nrelu,0,nan\n", "row 1 of .* is damaged"),
        ("[1]", "row 1 of .* has no 'layer'"),
        ("[", "is not JSON"),
    ],
)
def test_importances_that_are_not_understood_are_refused(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "importance"
    path.write_text(text)
    with pytest.raises(BadInput, match=said):
        read_importances(path, PLACES)
