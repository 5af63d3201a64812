"""Ray: a cluster of two nodes on this machine; a worker that is lost is replaced on the other node."""

import os
import sys

import pytest
import tasks

from graphdyn.config import Config
from graphdyn.errors import InputError
from graphdyn.executors.ray import RayExecutor
from graphdyn.journal import read_table
from graphdyn.runner import run
from graphdyn.study import Worker
from graphdyn.work import unit_of

pytestmark = [
    pytest.mark.slow,
    # What Ray's own modules do at import and at exit.
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
    ),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def never():
    return False


def outcomes(executor, work, todo, stopped=never):
    return sorted(executor.run(work, todo, stopped), key=lambda o: o.index)


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray", reason="pip install 'graphdyn[ray]'")
    from ray.cluster_utils import Cluster

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before


@pytest.fixture
def executor(cluster):
    return RayExecutor(address=cluster.address)


def test_tasks_end_once_on_all_nodes(executor):
    assert executor.workers == 2
    found = outcomes(executor, tasks.refuse_odd, [0, 1, 2, 4])
    assert [(o.result, o.error, o.reason) for o in found] == [
        (0, None, ""), (None, "InputError", "1 is odd."), (2, None, ""),
        (None, "KeyError", "KeyError: 'four'"),
    ]  # fmt: skip


def test_a_worker_is_kept_for_all_its_tasks(executor):
    executor.workers = 1
    found = outcomes(executor, tasks.Counter(), list(range(3)))
    assert [o.result[1] for o in found] == [1, 2, 3]


def test_a_task_whose_worker_dies_is_begun_again(executor, tmp_path):
    (found,) = outcomes(executor, tasks.die_at_first, [str(tmp_path)])
    assert found.result[0] != found.result[1]
    assert found.attempts == 2
    executor.attempts = 1
    (found,) = outcomes(executor, tasks.die, [0])
    assert (found.error, found.attempts) == ("WorkerDied", 1)
    assert found.reason.startswith("the worker was lost: ")


def test_told_to_stop_workers_finish(executor, tmp_path):
    begun = tmp_path / "begun"
    executor.workers = 1
    assert outcomes(executor, tasks.note_and_wait, [str(tmp_path)] * 2, begun.exists) == []
    assert (tmp_path / "told").exists()


def test_a_run_on_a_node_that_is_lost_goes_on_elsewhere_from_its_checkpoint(
    cluster, executor, tmp_path
):
    """The node goes in the middle of training; the run ends in the same numbers as one that never stopped."""
    config = Config(
        dataset="csbm", hidden=8, sampler="neighbor", batch_size=20, max_steps=150, evaluations=10,
        threads=1, workers=0, checkpoint_seconds=0.0,
    )  # fmt: skip
    unit = unit_of("csbm", "csbm", config, 3, tmp_path / "study")
    lost = cluster.add_node(num_cpus=1, resources={"lost": 1})
    cluster.wait_for_nodes()
    steps = []

    def lose_it():
        parts = [int(p.stem) for p in unit.folder.glob("metrics/*.arrow")]
        if len(parts) > 5 and not steps:
            steps.append(max(parts))
            cluster.remove_node(lost, allow_graceful=False)
        return False

    placed = OnNode(executor, "lost")
    (found,) = outcomes(placed, Worker(), [unit], lose_it)
    assert found.error is None, found.reason
    assert found.attempts == 2
    assert steps
    assert steps[0] < 150

    straight = Config(**{**vars(config), "first_seed": 3, "out": tmp_path / "straight"})
    run(straight)
    a, b = (
        read_table(f).drop_columns(["seconds"]).to_pylist()
        for f in (unit.folder, tmp_path / "straight")
    )
    assert a == b


class OnNode(RayExecutor):
    """The first worker is placed on a node with a resource of its own; later ones anywhere."""

    def __init__(self, like, resource):
        vars(self).update(vars(like))
        self.resource = resource

    def actor(self, kind, *args, cpus, gpus=0):
        options = {"num_cpus": cpus, "num_gpus": gpus}
        if cpus and self.resource:
            options["resources"], self.resource = {self.resource: 1}, None
        return self._ray.remote(**options)(kind).remote(*args)


def test_a_cluster_that_does_not_answer_is_one_sentence(cluster):
    import ray

    ray.shutdown()
    with pytest.raises(InputError, match="no Ray cluster answers at 127.0.0.1:1"):
        RayExecutor(address="127.0.0.1:1")
