"""The book as it is built, served and seen: each is made once for a whole test run, whatever the number of workers."""

import functools
import http.server
import json
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The book's sources."""
    return ROOT


@pytest.fixture(scope="session")
def html(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The built pages; warnings are errors."""
    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "book"
    with FileLock(f"{shared}.lock"):
        if not (shared / "done").is_file():
            build = "from jupyter_book.cli.main import main; main()"
            options = ["build", str(ROOT), "--path-output", str(shared), "--warningiserror", "--keep-going", "--quiet"]
            done = subprocess.run([sys.executable, "-c", build, *options], capture_output=True, text=True, check=False)
            shared.mkdir(exist_ok=True)
            (shared / "done").write_text(f"{done.returncode}\n{done.stderr[-8000:] or done.stdout[-8000:]}", "utf-8")
    code, _, log = (shared / "done").read_text("utf-8").partition("\n")
    assert code == "0", f"the book does not build without warnings:\n{log}"
    return shared / "_build" / "html"


@pytest.fixture(scope="session")
def pages(html: Path) -> tuple[str, ...]:
    """Names of the pages of the table of contents, home page first, and of the search page."""
    names = [path.relative_to(html).with_suffix("").as_posix() for path in html.glob("[bc]*/**/*.html")]
    return ("book/intro", *sorted(set(names) - {"book/intro"}), "search")


@pytest.fixture(scope="session")
def site(html: Path) -> Iterator[str]:
    """Address at which the built pages are served."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(html))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def npm_packages() -> dict[str, Path]:
    """Folders of the packages that ``package.json`` names, by ``name@version``; fetched once.

    They hold complete bundles, so `npm pack` brings three archives where `npm install` would bring two hundred.
    """
    wanted = json.loads((HERE / "package.json").read_text("utf-8"))["dependencies"]
    folders = {f"{name}@{version}": HERE / "node_modules" / name for name, version in wanted.items()}
    (HERE / "node_modules").mkdir(exist_ok=True)
    with FileLock(HERE / "node_modules" / ".lock"):
        for package, folder in folders.items():
            if _version(folder) != package.rpartition("@")[2]:
                _fetch(package, folder)
    return folders


def _version(folder: Path) -> str:
    file = folder / "package.json"
    return str(json.loads(file.read_text("utf-8"))["version"]) if file.is_file() else ""


def _fetch(package: str, folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"no npm to fetch {package} with; see .ci/run for how to install it")
    cache = HERE / "node_modules" / ".packed"
    cache.mkdir(parents=True, exist_ok=True)
    command = [npm, "pack", package, "--json", "--pack-destination", str(cache)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cache)
    if done.returncode:
        pytest.skip(f"npm could not fetch {package}: {done.stderr.strip()[-300:]}")
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(next(cache.glob("*.tgz"))) as archive:
        archive.extractall(cache, filter="data")
    folder.parent.mkdir(parents=True, exist_ok=True)
    (cache / "package").rename(folder)
    shutil.rmtree(cache)
