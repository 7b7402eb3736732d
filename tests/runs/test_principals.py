"""The runs of one principal among those of others, without a server."""

from __future__ import annotations

from pathlib import Path

import pytest
from waiting import small_spec

from backpropagate.training.config.settings import PrincipalSettings
from backpropagate.training.errors import DiskFullError, PathForbiddenError, QueueFullError, RunNotFoundError
from backpropagate.training.files.paths import PathPolicy
from backpropagate.training.runs.folder import RunFolder, Status
from backpropagate.training.runs.request_index import RequestIndex
from backpropagate.training.runs.store import RunStore


def of(home: Path, principal: str | None, dataset: Path, tiny_model: Path) -> RunFolder:
    return RunStore(home, principal).create(small_spec(dataset, tiny_model))


def test_a_run_is_its_principals_from_its_creation_until_it_is_deleted(
    home: Path, dataset: Path, tiny_model: Path
) -> None:
    hers, owners = of(home, "i ada", dataset, tiny_model), of(home, None, dataset, tiny_model)
    assert RunStore(home, "i ada").ids() == [hers.run_id]
    assert RunStore(home, "i eve").ids() == []
    assert set(RunStore(home).ids()) == {hers.run_id, owners.run_id}
    for other in (owners.run_id, owners.run_id[:20], ""):
        with pytest.raises(RunNotFoundError) as error:
            RunStore(home, "i eve").find(other)
        assert hers.run_id not in str(error.value)
    store = RunStore(home)
    store.finish(hers, hers.state().model_copy(update={"status": Status.CANCELLED}))
    store.delete(hers)
    assert not list((home / "principals").glob("*/*"))


def test_folders_that_are_no_runs_are_shown_to_the_owner_only(
    home: Path, dataset: Path, tiny_model: Path
) -> None:
    of(home, "i ada", dataset, tiny_model)
    (home / "runs" / "some folder").mkdir()
    assert RunStore(home).folders().foreign and not RunStore(home, "i ada").folders().foreign


def test_one_principal_cannot_fill_the_queue(home: Path, dataset: Path, tiny_model: Path) -> None:
    limits = PrincipalSettings(runs=2)
    for number in range(limits.runs):
        spec = small_spec(dataset, tiny_model, seed=number)
        RequestIndex(RunStore(home, "i ada", limits)).run_for(spec, None, f"{number}", find_equal=False)
    spec = small_spec(dataset, tiny_model, seed=99)
    with pytest.raises(QueueFullError, match="2 of your runs are queued or running; at most 2"):
        RequestIndex(RunStore(home, "i ada", limits)).run_for(spec, None, "99", find_equal=False)
    # An equal request still finds its run; others are not affected.
    assert RequestIndex(RunStore(home, "i ada", limits)).run_for(spec, None, "0", find_equal=True).existing
    assert (
        not RequestIndex(RunStore(home, "i eve", limits)).run_for(spec, None, "99", find_equal=False).existing
    )
    assert not RequestIndex(RunStore(home, None, limits)).run_for(spec, None, "99", find_equal=False).existing


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (PrincipalSettings(disk_gib=1e-6), "Your runs take"),
        (PrincipalSettings(free_gib=1e9), "are free on the server's disk"),
    ],
)
def test_one_principal_cannot_fill_the_disk(
    home: Path, dataset: Path, tiny_model: Path, limits: PrincipalSettings, said: str
) -> None:
    of(home, "i ada", dataset, tiny_model)
    spec = small_spec(dataset, tiny_model)
    with pytest.raises(DiskFullError, match=said):
        RequestIndex(RunStore(home, "i ada", limits)).run_for(spec, None, "x", find_equal=False)
    assert not RequestIndex(RunStore(home, None, limits)).run_for(spec, None, "x", find_equal=False).existing


@pytest.mark.parametrize("recorded", [False, True])
def test_of_the_home_a_principal_reads_only_its_own_runs_also_in_a_worker(
    home: Path, tmp_path: Path, dataset: Path, tiny_model: Path, recorded: bool
) -> None:
    hers, other = of(home, "i ada", dataset, tiny_model), of(home, "i eve", dataset, tiny_model)
    # Also where a permitted folder contains the home.
    policy = PathPolicy.for_assistant([tmp_path], home, user_home=False).of("i ada")
    if recorded:
        policy = PathPolicy.from_record(policy.recorded() or [], home)
    policy.permit(hers.path / "events.jsonl")
    policy.permit(dataset)
    (home / ".env").touch()
    for path in (
        other.path / "events.jsonl",
        home / "runs" / ".." / "runs" / other.run_id,
        home / "runs",
        home,
        home / ".env",
        home / "http-token",
        home / "audit.jsonl",
        home / "requests",
        Path(str(home).upper()) / "RUNS" / other.run_id,
    ):
        with pytest.raises(PathForbiddenError):
            policy.permit(path)
    link = tmp_path / "link"
    link.symlink_to(other.path)
    with pytest.raises(PathForbiddenError):
        policy.permit(link / "events.jsonl")
