"""A chapter runs from an installed wheel in an empty folder, as it does in Colab (`make colab` runs all of them)."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from pdebook import catalogue, notebooks

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder into which a wheel was installed, without what it depends on: that is there."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(root)], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "--target", str(folder / "site"), str(wheel)], check=True
    )
    return folder / "site"


@pytest.fixture
def environment(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Environment in which `import pdebook` finds the wheel, and an empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("PDEBOOK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(installed))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return dict(os.environ)


def python(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_catalogue_bibliography_and_records_are_in_the_wheel(installed: Path, environment: dict[str, str]) -> None:
    code = (
        "from pdebook import catalogue, records; import pdebook; print(pdebook.__file__); print(catalogue.checkout());"
        "print(len(catalogue.papers())); print(len(catalogue.bibliography())); print(catalogue.results_path());"
        "print(*sorted(p.name for p in catalogue.results_path().glob('*.json')))"
    )
    file, checkout, papers, references, results, stored = python(environment, "-c", code).split("\n")[:6]
    assert Path(file).is_relative_to(installed)
    assert checkout == "None"
    assert int(papers) == len(catalogue.papers())
    assert int(references) == len(catalogue.bibliography())
    assert Path(results).is_relative_to(installed)
    assert stored.split() == sorted(path.name for path in catalogue.results_path().glob("*.json"))


def test_command_line(installed: Path, environment: dict[str, str]) -> None:
    listed = python(environment, str(installed / "bin" / "pdebook"), "list")
    assert all(paper.slug in listed for paper in catalogue.papers())


def test_small_chapter_runs(installed: Path, environment: dict[str, str], tmp_path: Path) -> None:
    sources = [
        notebooks.setup_cell("dpm_solver"),
        "import pdebook; print(pdebook.__file__)",
        "from pdebook.diffusion import dpm_solver; ch.source(dpm_solver.fast_orders)",
        "spent = lambda budget: sum(dpm_solver.fast_orders(budget))",
        "ch.claim('budget', 'the whole budget is spent', spent(20), at_least=20, broken=lambda: spent(19))",
        "ch.scorecard()",
        "ch.references()",
    ]
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    text = nbformat.writes(notebook)
    assert str(installed) in text
    assert "✓ budget" in text
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".json"], "a run in another folder writes nothing"
