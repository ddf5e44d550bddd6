"""Runs the peers, compares them with ours, prints the differences, and stores the peers' results as small JSON files.

    python tests/peers/make_references.py                   # installed libraries (make peers)
    python tests/peers/make_references.py --official DIR    # and the papers' code: DIR holds clones named as their repositories

A chapter brings its own peers in ``<slug>_official.py``: ``official(folder)`` runs the code of ``REPOSITORY`` in a clone, and
``diffusers()``, if there is one, the schedulers. A file is written anew only when a number in it changed. Nothing of a peer's code
is stored.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch
from comparison import REFERENCES
from diffusion_cases import ADAPTIVE, CASES, ours, ours_adaptive
from diffusion_peers import official, official_values, run_diffusers, run_official, run_official_adaptive
from torch import Tensor

OFFICIAL = {
    "dpm-solver": ("https://github.com/LuChengTHU/dpm-solver", "dpm-solver", "dpm_solver_pytorch.py"),
    "unipc": ("https://github.com/wl-zhao/UniPC", "UniPC", "uni_pc.py"),
}


class Peer(NamedTuple):
    """A library whose results ``references(*arguments)`` of a module here makes.

    Attributes:
        stored: name of the file.
        package: the library.
        module: what runs it.
        companions: packages whose version matters too.
        arguments: of ``references``.
    """

    stored: str
    package: str
    module: str
    companions: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()


PEERS = (
    Peer("torchcde", "torchcde", "paths_peers", ("esig",)),
    *(
        Peer(name, name, "diffeq_peers", ("jax",) if name == "diffrax" else (), (name,))
        for name in ("torchdiffeq", "torchode", "torchsde", "diffrax")
    ),
    Peer("exponax", "exponax", "exponax_peers", ("jax",)),
    Peer("jax_cfd", "jax-cfd", "jax_cfd_peers", ("jax",)),
    Peer("neuraloperator", "neuraloperator", "neuraloperator_peers", ("tensorly-torch",)),
    Peer("mg_tfno", "neuraloperator", "mg_tfno_peers"),
)

CHAPTERS = ("deis", "pndm", "unified_sampling", "dpm_solver_v3")


def relative(value: Tensor, reference: Tensor) -> float:
    """Largest difference over largest magnitude."""
    return float((value.double() - reference.double()).abs().max() / reference.double().abs().max())


def store(peer: str, content: dict[str, Any], source: dict[str, str]) -> None:
    """Write a peer's results with their card, unless the stored ones are the same."""
    path = REFERENCES / f"{peer}.json"
    stored = json.loads(path.read_text()) if path.exists() else {}
    if {key: value for key, value in stored.items() if key != "card"} == json.loads(json.dumps(content)):
        print(f"{path.name} is unchanged")
        return
    card = {
        **source,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "command": "python "
        + " ".join(["tests/peers/make_references.py", *(["--official DIR"] if "repository" in source else [])]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    # One line a case: the changes of a later run are readable.
    sections = [f'"card": {json.dumps(card, indent=2)}']
    for name, section in content.items():
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in section.items())
        sections.append(f'"{name}": {{\n{lines}\n}}')
    temporary.write_text("{\n" + ",\n".join(sections) + "\n}\n")
    os.replace(temporary, path)
    print(f"{path.name} is written")


def compare(peer: str, run: Callable[[Any], tuple[list[float] | None, Tensor]]) -> dict[str, Any]:
    """Run all cases of a peer, print each difference in float32 and float64, and return what is to be stored."""
    stored = {}
    print(f"{'float32':>9} {'float64':>9}  {peer}: relative difference of ours")
    for case in CASES[peer].values():
        sigmas, result = run(case)
        single, double = (relative(ours(case, dtype, sigmas), result) for dtype in (torch.float32, torch.float64))
        print(f"{single:9.1e} {double:9.1e}  {case.name}")
        stored[case.name] = {"result": result.tolist()} | ({} if sigmas is None else {"sigmas": sigmas})
    return {"cases": stored}


def head(clone: Path) -> str:
    """The commit that a clone is at."""
    command = ["git", "-C", str(clone), "rev-parse", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, help="folder that holds clones of the official code")
    folder = parser.parse_args().official
    torch.set_num_threads(1)
    try:
        version = metadata.version("diffusers")
    except metadata.PackageNotFoundError:
        print("diffusers is not installed, its results are not compared (make peers installs it)")
    else:
        store("diffusers", compare("diffusers", run_diffusers), {"package": "diffusers", "version": version})
        for slug in CHAPTERS:
            module = import_module(f"{slug}_official")
            if hasattr(module, "diffusers"):
                store(f"{slug}_diffusers", module.diffusers(), {"package": "diffusers", "version": version})
    for peer in PEERS:
        try:
            source = {"package": peer.package, "version": metadata.version(peer.package)}
            source |= {companion: metadata.version(companion) for companion in peer.companions}
        except metadata.PackageNotFoundError as error:
            print(f"{error.name} is not installed, {peer.stored} is not compared (make peers installs it)")
        else:
            store(peer.stored, import_module(peer.module).references(*peer.arguments), source)
    if folder is None:
        print("the official code is not compared (--official DIR)")
        return
    for peer, (repository, clone, file) in OFFICIAL.items():
        path = folder / clone / file
        if not path.exists():
            sys.exit(f"--official must hold a clone of {repository} named {clone}: {path} is missing")
        module = official(path)
        commit = head(folder / clone)
        content = compare(peer, lambda case, module=module: (None, run_official(module, case)))
        names = ("vp-linear", "ddpm", *(["vp-cosine"] if peer == "unipc" else []))
        content["schedules"] = {name: official_values(module, name) for name in names}
        if peer == "dpm-solver":
            content["adaptive"] = {}
            for config in ADAPTIVE:
                name = f"{config['algorithm_type']} {config['order']}"
                result, evaluations = run_official_adaptive(module, config)
                x, count = ours_adaptive(config, torch.float64)
                print(f"{'':9} {relative(x, result):9.1e}  adaptive {name}: {evaluations} evaluations, ours {count}")
                content["adaptive"][name] = {"result": result.tolist(), "evaluations": evaluations}
        store(peer, content, {"repository": repository, "commit": commit, "file": file})
    for slug in CHAPTERS:
        chapter = import_module(f"{slug}_official")
        path = folder / chapter.REPOSITORY.rsplit("/", 1)[1]
        if not (path / chapter.FILE).exists():
            sys.exit(
                f"--official must hold a clone of {chapter.REPOSITORY} named {path.name}: {path / chapter.FILE} is missing"
            )
        store(
            slug, chapter.official(path), {"repository": chapter.REPOSITORY, "commit": head(path), "file": chapter.FILE}
        )


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning, module="diffusers")
    main()
