"""clusters.toml: what it may say, and what is said of a mistake in it."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Literal

import pytest
from fake_slurm import FakeSlurm

from backpropagate.cli.doctor.clusters import cluster_findings
from backpropagate.training.clusters.description import Cluster, load_clusters
from backpropagate.training.clusters.hosts import Host, Hosts
from backpropagate.training.clusters.job_script import inherited, options_of, script_of
from backpropagate.training.clusters.ssh import ssh_command
from backpropagate.training.errors import InvalidSettingError
from backpropagate.training.files.paths import PathPolicy


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[lab\n", "cannot be read: Expected"),
        ("lab = 1\n", "'lab'].*should be a table"),
        ("[lab]\npartitoin = 'gpu'\n", "'partitoin' is not a setting of a cluster"),
        ("[lab]\ngpus = 0\n", "gpus: should be greater than or equal to 1"),
        ("[lab]\npartition = 'a b'\n", "partition: "),
        ("[lab]\nenvironment = ['A,B=C']\n", "environment: "),
        ("[lab]\nhosts = []\n", "hosts: list should have at least 1 item"),
        ("[lab]\nhosts = ['a']\npartition = 'gpu'\n", "'partition' is not a setting of a list of hosts"),
        ("[lab]\nhosts = ['a', {nam = 'b'}]\n", "host 2: 'nam' is not a setting of a host"),
        ("[lab]\nhosts = ['-oProxyCommand=x']\n", "host 1: name: string should match"),
        ("[lab]\nhosts = [{name = 'a', gpus = 0}]\n", "host 1: gpus: should be greater than or equal to 1"),
        ("[lab]\nhosts = ['a', 'a']\n", "hosts: should name each host once"),
        ("[x]\nhosts = ['a', 'b']\n[y]\nhosts = ['b', 'c', 'a']\n", "the same hosts in different orders"),
    ],
)
def test_a_mistake_is_named_with_its_place(lab: Path, text: str, words: str) -> None:
    lab.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidSettingError, match=words) as wrong:
        load_clusters(lab.parent)
    assert "clusters.toml" in wrong.value.message and wrong.value.hint


def test_each_setting_is_an_option_of_sbatch() -> None:
    cluster = Cluster(
        partition="gpu",
        account="us",
        qos="high",
        time="1:00:00",
        gpus=2,
        gpu_type="a100",
        cpus=8,
        memory="64G",
        constraint="ib",
        reservation="r",
        nodelist="n[1-2]",
        exclude="n3",
        mail_type="END",
        mail_user="me@here",
    )
    assert set(options_of(cluster)) == {
        *("--partition=gpu", "--account=us", "--qos=high", "--time=1:00:00", "--gpus-per-node=a100:2"),
        *("--cpus-per-task=8", "--mem=64G", "--constraint=ib", "--reservation=r", "--nodelist=n[1-2]"),
        *("--exclude=n3", "--mail-type=END", "--mail-user=me@here"),
    }
    assert options_of(Cluster(gpu_type="h100")) == ["--gpus-per-node=h100:1"]
    assert options_of(Cluster()) == []
    assert options_of(Cluster(nodes=2)) == ["--nodes=2"]


@pytest.mark.parametrize(
    ("cluster", "gpus", "asked"),
    [
        (Cluster(gpus=4), "all", ["--gpus-per-node=4"]),
        (Cluster(gpus=4), 1, ["--gpus-per-node=1"]),
        (Cluster(gpus=4, gpu_type="a100"), 2, ["--gpus-per-node=a100:2"]),
        (Cluster(), 2, ["--gpus-per-node=2"]),
        (Cluster(), 1, []),
        (Cluster(gpus=4), None, []),
    ],
)
def test_a_job_asks_for_the_gpus_that_its_training_uses(
    cluster: Cluster, gpus: int | Literal["all"] | None, asked: list[str]
) -> None:
    assert options_of(cluster, gpus) == asked


def test_hosts_are_tables_or_names_and_use_the_gpus_that_a_training_asks_for(lab: Path) -> None:
    lab.write_text("[pair]\nhosts = ['a', {name = 'b', gpus = 2}]\n", encoding="utf-8")
    pair = load_clusters(lab.parent)["pair"]
    assert isinstance(pair, Hosts) and [host.name for host in pair.hosts] == ["a", "b"]
    assert [host.processes("all", "auto") for host in pair.hosts] == [1, 2]
    assert [host.processes("all", "cpu") for host in pair.hosts] == [1, 1]
    assert [host.processes(4, "cpu") for host in pair.hosts] == [4, 4]


def test_this_machine_is_known_by_its_name_and_addresses_unless_ssh_is_needed() -> None:
    assert Host(name=socket.gethostname()).is_here() and Host(name="127.0.0.1").is_here()
    assert not Host(name="127.0.0.1", port=2222).is_here() and not Host(name="somewhere.invalid").is_here()


def test_a_command_for_a_host_is_quoted_for_its_shell() -> None:
    host = Host(name="a", user="me", port=2222)
    *options, name, line = ssh_command(host, ["/opt/my python", "$HOME", "it's"])
    assert (name, line) == ("a", "'/opt/my python' '$HOME' 'it'\"'\"'s'")
    assert options[-5:] == ["-l", "me", "-p", "2222", "--"]


def test_a_script_quotes_what_a_shell_would_read() -> None:
    assert script_of(["/opt/my python", "$HOME"]) == "#!/bin/sh\nexec '/opt/my python' '$HOME'\n"


def test_a_job_inherits_known_variables_and_those_that_the_cluster_names() -> None:
    names = ["HF_TOKEN", "AWS_SECRET", "MY_MODULES", "WANDB_API_KEY", "BACKPROPAGATE_RUNTIME_DIR"]
    assert inherited(names, Cluster(environment=["MY_MODULES"])) == [
        "HF_TOKEN",
        "MY_MODULES",
        "WANDB_API_KEY",
    ]


def test_an_assistant_can_neither_read_nor_write_the_file(lab: Path) -> None:
    policy = PathPolicy.for_assistant([], lab.parent)
    for write in (False, True):
        with pytest.raises(PermissionError):
            policy.resolve(str(lab), "dataset", write=write)


@pytest.mark.skipif(sys.platform != "linux", reason="Slurm runs on Linux")
def test_the_doctor_tries_each_cluster(slurm: FakeSlurm, lab: Path) -> None:
    assert [finding.level for finding in cluster_findings()] == ["ok"]
    slurm.refuse("Invalid account")
    (finding,) = cluster_findings()
    assert finding.level == "problem" and "Invalid account" in finding.message and finding.repair
    lab.write_text("[lab]\nx = 1\n", encoding="utf-8")
    assert [finding.level for finding in cluster_findings()] == ["problem"]
    lab.unlink()
    assert not list(cluster_findings())
