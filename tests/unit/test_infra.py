"""The files of infra/ fit the job: its command, its configuration, its buckets, its versions."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deid import config as configuration

ROOT = Path(__file__).parents[2]
CLUSTER = configuration.load(ROOT / "configs" / "cluster.yaml")


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "infra" / "rayjob.yaml").read_text())
    return loaded


def constraint(package: str) -> str:
    found = re.search(rf"^{re.escape(package)}==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found
    return found[1]


def test_the_rayjob_runs_the_job_on_the_mounted_configuration(job: dict[str, Any]) -> None:
    command, script, settings = job["spec"]["entrypoint"].split()
    assert command == "python"
    assert (ROOT / Path(script).relative_to("/app")).is_file()
    groups = [
        job["spec"]["rayClusterSpec"]["headGroupSpec"],
        *job["spec"]["rayClusterSpec"]["workerGroupSpecs"],
    ]
    for group in groups:
        spec = group["template"]["spec"]
        mounts = {mount["mountPath"]: mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
        assert mounts[str(Path(settings).parent)] in {volume["name"] for volume in spec["volumes"]}


def test_the_rayjob_has_the_installed_ray_and_asks_for_a_token(job: dict[str, Any]) -> None:
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == constraint("ray")
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_the_workers_can_hold_the_least_pools(job: dict[str, Any]) -> None:
    workers = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    pools = [getattr(CLUSTER.stages, name) for name in ("analyse", "generate", "compose")]
    assert sum(p.actors * p.cpus for p in pools) <= workers["replicas"] * int(limits["cpu"])
    assert sum(p.actors * p.gpus for p in pools) <= workers["replicas"] * int(limits["nvidia.com/gpu"])


def test_the_policy_grants_what_the_cluster_configuration_uses() -> None:
    policy = json.loads((ROOT / "infra" / "iam-policy.json").read_text())
    granted: dict[str, set[str]] = {}
    for statement in policy["Statement"]:
        resources = statement["Resource"]
        for resource in [resources] if isinstance(resources, str) else resources:
            actions = statement["Action"]
            granted.setdefault(resource, set()).update([actions] if isinstance(actions, str) else actions)

    def arn(uri: str | None) -> str:
        assert uri is not None
        return uri.replace("s3://", "arn:aws:s3:::").rstrip("/") + "/*"

    assert "s3:GetObject" in granted[arn(CLUSTER.input.uri)]
    assert "s3:PutObject" not in granted[arn(CLUSTER.input.uri)]
    assert "s3:PutObject" in granted[arn(CLUSTER.output.uri)]
    assert granted[arn(CLUSTER.state)] >= {"s3:GetObject", "s3:PutObject", "s3:DeleteObject"}
    assert "s3:GetObject" in granted[arn(CLUSTER.models.mirror)]
    for uri in (CLUSTER.input.uri, CLUSTER.output.uri, CLUSTER.state, CLUSTER.models.mirror):
        assert "s3:ListBucket" in granted["arn:aws:s3:::" + str(uri).removeprefix("s3://").partition("/")[0]]


def test_the_image_installs_the_pinned_torch_and_copies_what_exists() -> None:
    lines = (ROOT / "infra" / "Dockerfile").read_text().splitlines()
    assert f"torch=={constraint('torch')}" in "\n".join(lines)
    for line in lines:
        if line.startswith("COPY "):
            assert all((ROOT / source).exists() for source in line.split()[1:-1])
