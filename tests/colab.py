"""Run the ready chapters as Colab would: ``python tests/colab.py``.

A fresh environment gets torch, numpy, matplotlib, IPython, ipykernel and the old ipywidgets that Colab still ships, then the
project from a clone of this repository with no extra. None of those versions may change, and every chapter must make the same
claims as its stored record, executed in an empty folder.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOSTED = ["torch", "numpy", "matplotlib", "ipython", "ipykernel", "ipywidgets"]
PINNED = {"ipywidgets": "7.7.1", "ipython": "7.34.0", "ipykernel": "6.29.5", "numpy": "2.0.2", "matplotlib": "3.10.0"}

EXECUTE = """
import json, sys
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": sys.argv[2]}}).execute()
claims = [
    line
    for cell in notebook.cells
    for output in cell.get("outputs", [])
    for line in (output.get("text") or output.get("data", {}).get("text/plain", "")).splitlines()
    if line.startswith(("\\u2713", "\\u2717", "\\u25cb"))
]
json.dump(claims, open(sys.argv[3], "w"))
"""


def versions(python: Path) -> dict[str, str]:
    """Installed versions of what a hosted notebook already has."""
    code = f"import json, importlib.metadata as m; print(json.dumps({{n: m.version(n) for n in {HOSTED!r}}}))"
    return json.loads(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout)


def stored_claims(notebook: Path) -> list[str]:
    """Claim lines of the stored notebook."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    texts = ["".join(o.get("text") or o.get("data", {}).get("text/plain", "")) for o in outputs]
    return [line for text in texts for line in text.splitlines() if line.startswith(("✓", "✗", "○"))]


def main() -> int:
    """Run all ready chapters; the exit status is the number of those that failed."""
    failed = 0
    torch = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        python = home / "env" / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", home / "env"], check=True)
        pip = [python, "-m", "pip", "install", "-q"]
        subprocess.run([*pip, torch, *[f"{name}=={version}" for name, version in PINNED.items()]], check=True)
        before = versions(python)
        subprocess.run(["git", "clone", "-q", ROOT, home / "clone"], check=True)
        subprocess.run([*pip, f"git+file://{home}/clone"], check=True)
        after = versions(python)
        print("versions:", ", ".join(f"{name} {version}" for name, version in after.items()))
        if before != after:
            print(f"the installation changed versions: {before} became {after}")
            failed += 1
        subprocess.run(
            [python, "-m", "ipykernel", "install", "--prefix", home / "env", "--name", "python3"],
            check=True,
            capture_output=True,
        )
        for notebook in sorted((home / "clone" / "chapters").rglob("*.ipynb")):
            empty = home / "empty" / notebook.stem
            empty.mkdir(parents=True)
            out = home / f"{notebook.stem}.json"
            environment = {
                key: value
                for key, value in os.environ.items()
                if not key.startswith(("PDEBOOK", "PYTHONPATH", "JUPYTER"))
            }
            run = subprocess.run(
                [python, "-c", EXECUTE, notebook, empty, out],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            same = run.returncode == 0 and json.loads(out.read_text()) == stored_claims(notebook)
            print(f"{'passed' if same else 'FAILED'}: {notebook.stem}")
            if not same:
                print(run.stderr[-2000:])
                failed += 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
