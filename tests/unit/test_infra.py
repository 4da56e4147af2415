"""The files of infra/ fit the job: its command, its configuration, its buckets, its versions."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deid import config as configuration
from deid.privacy import manifest, wrapping

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
        names = {volume["name"] for volume in group["template"]["spec"]["volumes"]}
        assert mounts(group)[str(Path(settings).parent)] in names
        assert set(mounts(group).values()) <= names


def test_the_rayjob_has_the_installed_ray_and_asks_for_a_token(job: dict[str, Any]) -> None:
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == constraint("ray")
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_the_driver_is_told_the_digest_of_its_image(job: dict[str, Any]) -> None:
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert manifest.IMAGE_DIGEST in {entry["name"] for entry in head["env"]}


def mounts(group: dict[str, Any]) -> dict[str, str]:
    """Names of a group's volumes by the folder that they are mounted at."""
    container = group["template"]["spec"]["containers"][0]
    return {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}


def test_the_key_to_sign_with_is_a_secret_on_the_head_alone(job: dict[str, Any]) -> None:
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]
    assert CLUSTER.signing.key is not None
    folder = str(Path(CLUSTER.signing.key).parent)
    volumes = {volume["name"]: volume for volume in head["template"]["spec"]["volumes"]}
    secret = volumes[mounts(head)[folder]]["secret"]
    assert secret["defaultMode"] & 0o007 == 0
    user = re.search(r"--uid (\d+)", (ROOT / "infra" / "Dockerfile").read_text())
    assert user
    assert head["template"]["spec"]["securityContext"]["fsGroup"] == int(user[1])
    for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        assert folder not in mounts(group)
        assert not any("secret" in volume for volume in group["template"]["spec"]["volumes"])


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

    def bucket(uri: str | None) -> str:
        return "arn:aws:s3:::" + str(uri).removeprefix("s3://").partition("/")[0]

    assert "s3:GetObject" in granted[arn(CLUSTER.input.uri)]
    assert "s3:PutObject" not in granted[arn(CLUSTER.input.uri)]
    assert granted[arn(CLUSTER.output.uri)] >= {"s3:GetObject", "s3:PutObject", "s3:DeleteObject"}
    destroy = {"s3:DeleteObject", "s3:DeleteObjectVersion"}
    assert granted[arn(CLUSTER.state)] >= {"s3:GetObject", "s3:PutObject"} | destroy
    assert "s3:GetObject" in granted[arn(CLUSTER.models.mirror)]
    for uri in (CLUSTER.input.uri, CLUSTER.output.uri, CLUSTER.state, CLUSTER.models.mirror):
        assert "s3:ListBucket" in granted[bucket(uri)]
    assert "s3:ListBucketVersions" in granted[bucket(CLUSTER.state)]


def test_the_policy_lets_the_job_wrap_its_run_key_and_use_kms_for_nothing_else() -> None:
    policy = json.loads((ROOT / "infra" / "iam-policy.json").read_text())
    (statement,) = [s for s in policy["Statement"] if any("kms:" in action for action in s["Action"])]
    assert set(statement["Action"]) == {"kms:GenerateDataKey", "kms:Decrypt"}
    assert statement["Condition"]["StringEquals"] == {
        "kms:RequestAlias": str(CLUSTER.state_key).removeprefix("aws-kms://"),
        **{f"kms:EncryptionContext:{name}": value for name, value in wrapping._PURPOSE.items()},
    }


def test_the_image_installs_the_pinned_torch_and_copies_what_exists() -> None:
    lines = (ROOT / "infra" / "Dockerfile").read_text().splitlines()
    assert f"torch=={constraint('torch')}" in "\n".join(lines)
    for line in lines:
        if line.startswith("COPY "):
            assert all((ROOT / source).exists() for source in line.split()[1:-1])
