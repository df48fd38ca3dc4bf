"""The manifests obey Kubernetes' own schemas, and what they say fits the images and the program."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, Command
from tests.toy import toy_bundle, toy_photos, toy_subject

FOLDER = ROOT / "deploy"
OLDEST = "1.29"


def documents(name: str = "") -> list[dict[str, Any]]:
    paths = [FOLDER / name] if name else sorted(FOLDER.glob("*.yaml"))
    assert paths
    return [found for path in paths for found in yaml.safe_load_all(path.read_text())]


def of_kind(kind: str, name: str) -> dict[str, Any]:
    found = {one["metadata"]["name"]: one for one in documents() if one["kind"] == kind}
    return found[name]


def pods() -> list[dict[str, Any]]:
    return [one["spec"]["template"]["spec"] for one in documents() if "template" in one["spec"]]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


@pytest.mark.parametrize("document", documents(), ids=lambda one: one["metadata"]["name"])
def test_manifests_obey_the_schemas(document: dict[str, Any]) -> None:
    checker = pytest.importorskip("kubernetes_validate")
    for version in (OLDEST, checker.latest_version()):
        checker.validate(document, version, strict=True)
    assert "namespace" not in document["metadata"]


def test_an_unknown_key_is_no_manifest() -> None:
    """The check above can fail."""
    checker = pytest.importorskip("kubernetes_validate")
    wrong = of_kind("Deployment", "milan-onnx")
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(checker.ValidationError, match="readinesProbe"):
        checker.validate(wrong, OLDEST, strict=True)


@pytest.mark.parametrize("pod", pods(), ids=lambda pod: pod["containers"][0]["name"])
def test_pods_are_restricted(pod: dict[str, Any]) -> None:
    """As the Pod Security Standard `restricted` asks, and with a read-only root."""
    rules = pod["securityContext"]
    assert rules["runAsNonRoot"] and rules["seccompProfile"] == {"type": "RuntimeDefault"}
    assert f"USER {rules['runAsUser']}:{rules['runAsGroup']}" in (ROOT / "Dockerfile").read_text()
    assert pod["automountServiceAccountToken"] is False
    for container in containers(pod):
        own = container["securityContext"]
        assert own["readOnlyRootFilesystem"] and own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= set(container["resources"]["limits"])
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_claims_secret_ports_and_labels_meet() -> None:
    serving = pytest.importorskip("milan_onnx.serve.settings", reason="wants the extra serve")
    deployment = of_kind("Deployment", "milan-onnx")
    pod = deployment["spec"]["template"]
    claims = {one["metadata"]["name"] for one in documents() if "Claim" in one["kind"]}
    for volume in (volume for pod in pods() for volume in pod["volumes"]):
        assert volume.get("persistentVolumeClaim", {}).get("claimName") in {*claims, None}
    service = of_kind("Service", "milan-onnx")["spec"]
    labels = pod["metadata"]["labels"]
    assert service["selector"] == labels == deployment["spec"]["selector"]["matchLabels"]
    (container,) = pod["spec"]["containers"]
    port = container["args"][container["args"].index("--port") + 1]
    assert container["ports"] == [{"name": "http", "containerPort": int(port)}]
    assert service["ports"][0]["targetPort"] == "http"
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == port
    assert pod["spec"]["terminationGracePeriodSeconds"] > serving.ServeSettings().grace
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("liveness", "readiness")}
    assert probes["liveness"]["path"] == container["startupProbe"]["httpGet"]["path"] == "/healthz"
    assert probes["readiness"]["path"] == "/readyz"


def test_jobs_and_their_numbers_of_shards_agree() -> None:
    scan, merge = (of_kind("Job", f"milan-onnx-{name}")["spec"] for name in ("scan", "merge"))
    assert scan["completionMode"] == "Indexed" and scan["parallelism"] == scan["completions"]
    for pod in (scan["template"]["spec"], merge["template"]["spec"]):
        for container in containers(pod):
            assert settings(container)["SHARDS"] == str(scan["completions"])


def settings(container: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container["env"]}


def test_what_the_jobs_run_gives_the_run_of_one_process(tmp_path: Path, milan: Command) -> None:
    """Their own commands, one pod after another, on a folder that is the volume."""
    toy_subject(tmp_path / "model.onnx")
    toy_photos(tmp_path / "photos")
    bundle = toy_bundle(tmp_path / "b").path
    scan, merge = (of_kind("Job", f"milan-onnx-{name}")["spec"] for name in ("scan", "merge"))
    (work,) = scan["template"]["spec"]["containers"]
    own = {"WORK": str(tmp_path), "LAYER": "relu6"}
    for index in range(scan["completions"]):
        pod(work, own | {"JOB_COMPLETION_INDEX": str(index)}, f"--bundle={bundle}")
    for container in containers(merge["template"]["spec"]):
        pod(container, own)
    whole = ["-i", tmp_path / "photos", "--bundle", bundle, "-o", tmp_path / "whole"]
    assert milan("describe", tmp_path / "model.onnx", "-l", "relu6", *whole).returncode == 0
    merged = (tmp_path / "run" / "labels.jsonl").read_bytes()
    assert merged == (tmp_path / "whole" / "labels.jsonl").read_bytes()
    assert json.loads(merged.splitlines()[0])["layer"] == "relu6"


def pod(container: dict[str, Any], own: dict[str, str], more: str = "") -> None:
    """Run a container's command with the settings of the manifest, but for some of our own."""
    program = str(Path(sys.executable).parent)
    environment = os.environ | settings(container) | own
    environment["PATH"] = f"{program}{os.pathsep}{environment['PATH']}"
    (script,) = container["args"]
    if more:
        assert "--out" in script
        script = script.replace("--out", f"{more} --out")
    line = [shutil.which("sh") or "sh", *container["command"][1:], script]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
