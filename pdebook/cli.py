"""The command ``pdebook``: list, run, scorecard, arena, assignment, weights, repository, release.

What is wrong with the input ends with exit code 2, a run or a file that failed with 1; neither shows a traceback.
"""

import importlib
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from pdebook import catalogue, records

__all__ = ["app", "main"]

app = typer.Typer(
    name="pdebook",
    help="Differential equations and neural networks: run the book, its claims and its exercises.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
weights_app = typer.Typer(no_args_is_help=True, help="The small networks that the book ships.")
app.add_typer(weights_app, name="weights")

Slug = Annotated[str, typer.Argument(metavar="SLUG", help="The chapter's name, as `pdebook list` shows it.")]
Profile = Annotated[str, typer.Option(help="quick (about a minute on one CPU core) or full (minutes on a GPU).")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda or cuda:N; default: the CPU for quick, else CUDA if there.")
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: run the command line and turn the library's errors into messages."""
    try:
        app(args=None if arguments is None else list(arguments))
    except ValueError as error:
        _fail(error, 2)
    except records.Failure as error:
        _fail(error, 1)


def _fail(error: Exception, code: int) -> None:
    typer.secho(f"Error: {error}", fg="red", err=True)
    sys.exit(code)


@app.command("list")
def list_chapters(
    part: Annotated[str | None, typer.Option(help="Only this part.")] = None,
    ready: Annotated[bool, typer.Option("--ready", help="Only the chapters that are written.")] = False,
) -> None:
    """List the chapters: name, state, year and title, part by part."""
    for entry in [catalogue.part(part)] if part else catalogue.parts():
        rows = [p for p in catalogue.papers() if p.part == entry.slug and (p.ready or not ready)]
        if rows:
            typer.secho(f"{entry.number}. {entry.title} ({entry.slug})", bold=True)
            typer.echo(_table([(f"  {p.slug}", p.state, str(p.year), p.title) for p in rows]))


@app.command()
def run(
    slug: Slug,
    profile: Profile = "quick",
    record: Annotated[bool, typer.Option("--record", help="Write the record of a full run.")] = False,
    device: Device = None,
    seeds: Annotated[str, typer.Option(help="Run under each of these seeds, such as 1-5 or 1,3,7.")] = "0",
) -> None:
    """Run a chapter. The quick profile on the CPU with seed 0 rewrites its notebook and its record."""
    from pdebook import runner

    numbers = runner.parse_seeds(seeds)
    if record and numbers != [0]:
        raise ValueError(f"record: only seed 0 is recorded, got seeds {seeds}")
    runs = []
    for seed in numbers:
        done = runner.run(slug, profile=profile, seed=seed, device=device, record=record)
        runs.append(done.record)
        _show(done.record)
        for note in done.notes:
            typer.secho(f"Note: {note}", fg="yellow")
        for path in done.written:
            typer.echo(f"Wrote {path}")
    if len(runs) > 1:
        _compare_seeds(runs)
    if not all(record.passed for record in runs):
        raise typer.Exit(1)


@app.command()
def scorecard(
    slug: Annotated[str | None, typer.Argument(help="One chapter; without it, the whole book.")] = None,
) -> None:
    """Show the recorded claims of one chapter, or how many hold in each."""
    from pdebook.scorecard import Scorecard

    if slug is None:
        header = ("chapter", "quick", "full")
        rows = [(p.slug, _summary(p.slug, "quick"), _summary(p.slug, "full")) for p in catalogue.papers() if p.ready]
        typer.echo(_table([header, *rows]))
        return
    catalogue.paper(slug)
    record, state = records.status(slug, "quick")
    if record is None:
        typer.echo(f"{slug}: the quick record is {state}; `pdebook run {slug}` makes it")
        return
    here = f"quick profile, seed {record.seed}, {record.processor}, {record.date}, commit {record.commit} ({state})"
    typer.echo(str(Scorecard(slug, record.claims, here)))


@app.command()
def assignment(
    slug: Slug,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the course.")] = Path("assignment"),
) -> None:
    """Write a chapter as coursework: the students' notebook and the instructor's."""
    from pdebook import publish

    source, student = publish.assignment(slug, output)
    typer.echo(f"Instructor: {source}\nStudents:   {student}")


@app.command()
def arena(
    part: Annotated[str, typer.Argument(help="The part, such as diffusion.")],
    profile: Profile = "quick",
    device: Device = None,
    seed: Annotated[int, typer.Option(help="Seed of the comparison.")] = 0,
) -> None:
    """Compare the methods of a part on the same problems, and record the result for the book."""
    from pdebook import chapter

    module = _arena(part)
    profile, seed, place = chapter.settings(profile, seed, device or ("cpu" if profile == "quick" else None))
    with records.lock(f"arena_{part}"):
        records.check_writable([records.arena_path(part)])
        start = time.perf_counter()
        results = module.run(profile=profile, seed=seed, device=place)
        seconds = time.perf_counter() - start
        path = records.write_arena(part, results, profile=profile, seed=seed, device=str(place), seconds=seconds)
    typer.echo(f"Wrote {path}")


@app.command()
def repository(url: Annotated[str, typer.Argument(help="https://github.com/OWNER/NAME")]) -> None:
    """Set the book's home on the web everywhere: catalogue, configuration, prose and notebooks."""
    from pdebook import publish

    _changed(publish.set_repository(url))


@app.command()
def release(version: Annotated[str, typer.Argument(help="The new version, such as 0.2.0.")]) -> None:
    """Write a version everywhere; then commit, and tag the commit v<version>."""
    from pdebook import publish

    _changed(publish.release(version))
    typer.echo(f"Next: reinstall, test, commit, and `git tag v{version}`")


@weights_app.command("list")
def weights_list() -> None:
    """List the shipped weights."""
    weights = _weights()
    rows = [(name, str(weights.card(name).get("description", ""))) for name in weights.names()]
    typer.echo(_table(rows) if rows else "no weights are shipped")


@weights_app.command("verify")
def weights_verify(names: Annotated[list[str] | None, typer.Argument(help="Default: all.")] = None) -> None:
    """Check the files against the hashes of their cards."""
    weights = _weights()
    for name in _chosen(weights, names):
        weights.verify(name)
        typer.echo(f"{name}: as on its card")


@weights_app.command("make")
def weights_make(names: Annotated[list[str], typer.Argument(help="What to train anew, in minutes on a CPU.")]) -> None:
    """Train weights again, with the command and the seed of their card."""
    weights = _weights()
    for name in _chosen(weights, names):
        typer.echo(f"Wrote {weights.make(name)}")


def _weights() -> Any:
    return importlib.import_module("pdebook.weights")


def _chosen(weights: Any, names: Iterable[str] | None) -> list[str]:
    known = list(weights.names())
    for name in names or []:
        if name not in known:
            raise catalogue.closest(name, "weights", known)
    return list(names or known)


def _arena(part: str) -> ModuleType:
    name = f"pdebook.{catalogue.part(part).slug}.arena"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not name.startswith(str(error.name)):
            raise
        raise ValueError(f"part {part!r} has no arena: there is no module {name}") from error


def _show(record: records.Record) -> None:
    typer.secho(f"{record.slug}, {record.profile} profile, seed {record.seed}, {record.device}", bold=True)
    for claim in record.claims:
        measured = f"measured {claim.measured:.4g}" + ("" if claim.broken is None else f", broken {claim.broken:.4g}")
        typer.secho(f"{claim.line}  [{measured}]", fg=None if claim.passed else "red")
    held = sum(claim.passed for claim in record.claims)
    typer.echo(f"{held} of {len(record.claims)} claims hold; {record.seconds:.0f} s, {record.peak_memory:.0f} MiB")


def _compare_seeds(runs: Sequence[records.Record]) -> None:
    """Each claim's measured value under each seed; a cross marks where it fails."""
    claims = {claim.id: claim.bound for run in runs for claim in run.claims}
    rows = [("claim", "bound", *(f"seed {run.seed}" for run in runs))]
    for name, bound in claims.items():
        found = [next((claim for claim in run.claims if claim.id == name), None) for run in runs]
        values = ("missing" if c is None else f"{c.measured:.4g}{'' if c.passed else ' ✗'}" for c in found)
        rows.append((name, bound, *values))
    typer.echo(_table(rows))


def _summary(slug: str, profile: str) -> str:
    record, state = records.status(slug, profile)
    if record is None:
        return state
    held = sum(claim.passed for claim in record.claims)
    return f"{held} of {len(record.claims)}" + ("" if state == "current" else f" ({state})")


def _changed(paths: Iterable[Path]) -> None:
    lines = [f"Changed {path}" for path in paths]
    typer.echo("\n".join(lines) or "Nothing to change")


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)
