"""One small study on disk for all tests that only read it."""

import pytest
from report.study.studies import DATASETS, METHODS, Truth, write_study


@pytest.fixture(scope="session")
def truth() -> Truth:
    """Two data sets, three methods, six seeds; one failed, one diverged, one unfinished, one not started."""
    return Truth(
        datasets={d: DATASETS[d] for d in ("cora", "citeseer")},
        methods={m: METHODS[m] for m in ("full", "neighbor", "gas")},
        seeds=6,
        failed=(("citeseer", "gas", 3),),
        diverged=(("cora", "full", 2),),
        unfinished=(("cora", "gas", 1),),
        absent=(("citeseer", "full", 5),),
    )


@pytest.fixture(scope="session")
def folder(truth, tmp_path_factory):
    """Of that study."""
    return write_study(tmp_path_factory.mktemp("study"), truth)


@pytest.fixture(scope="session")
def page(folder):
    """Its report."""
    pytest.importorskip("plotly", reason="pip install 'graphdyn[report]' for the page of a study")
    from graphdyn.report.study import write_report

    return write_report(folder)
