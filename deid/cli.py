"""The `deid` command. Heavy imports wait until a verb needs them."""

import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from deid.errors import DeidError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Replace every face of an image corpus by a synthetic surrogate.\n\nExit codes: 0 done, 1 a bug, "
    "2 configuration or command line, 3 model or gallery, 4 input, 5 storage or cluster (try again), "
    "6 a promise of the run does not hold.",
)
models_app = typer.Typer(no_args_is_help=True, help="The models: fetch, list, verify.")
gallery_app = typer.Typer(no_args_is_help=True, help="The gallery of synthetic identities.")
app.add_typer(models_app, name="models")
app.add_typer(gallery_app, name="gallery")

ConfigPath = Annotated[Path, typer.Argument(help="YAML configuration; see configs/.")]
Cache = Annotated[
    str | None, typer.Option(help="Model cache; default: DEID_MODEL_CACHE or the user's cache folder.")
]
Mirror = Annotated[
    str | None, typer.Option(help="Folder or s3:// prefix looked in before the package registry.")
]


def _console() -> Any:
    from rich.console import Console

    return Console()


def _print_pairs(title: str, pairs: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in pairs.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
    _console().print(table)


@app.command()
def run(config: ConfigPath) -> None:
    """Run the job: shards in, de-identified shards and an audit out."""
    from deid import config as configuration
    from deid.pipeline import run as pipeline

    result = pipeline.run(configuration.load(config))
    reasons = {f"quarantined: {reason}": count for reason, count in result.manifest["quarantine"].items()}
    _print_pairs(f"run {result.run}", result.manifest["counts"] | reasons)
    _console().print(f"output {result.output}", soft_wrap=True)


@app.command()
def plan(config: ConfigPath) -> None:
    """Say what a run would do: shards, sizes, models, actors. Nothing is written."""
    from deid import config as configuration
    from deid.pipeline import plan as planning

    _print_pairs(str(config), planning.describe(configuration.load(config)))


@app.command()
def demo(
    workdir: Annotated[Path, typer.Option(help="Where the corpus and the result are kept.")] = Path(".demo"),
) -> None:
    """Make a corpus of fictional people, run the job on it against a real S3 server, show what came out."""
    from deid.demo import run as demonstration

    raise typer.Exit(demonstration.main(workdir))


def _store(cache: str | None, mirror: str | None) -> Any:
    from deid import config as configuration
    from deid.models.store import Store

    return Store(
        configuration.Models(accept=("clean", "permissive", "restricted"), cache=cache, mirror=mirror)
    )


@models_app.command("list")
def models_list(cache: Cache = None, mirror: Mirror = None) -> None:
    """Every model: version, licence and its class, commercial use, whether it is in the cache."""
    from rich.table import Table

    names = ("model", "package", "licence", "class", "commercial use", "cached")
    table = Table(*names, title="models")
    for row in _store(cache, mirror).rows():
        cached = "yes" if row.cached else "no"
        table.add_row(
            row.name,
            f"{row.package} {row.version}",
            row.licence,
            row.licence_class,
            row.commercial_use,
            cached,
        )
    _console().print(table)


@models_app.command("fetch")
def models_fetch(
    cache: Cache = None,
    mirror: Mirror = None,
    push: Annotated[bool, typer.Option(help="Also put into the mirror what it lacks.")] = False,
) -> None:
    """Fetch every model into the cache and check it."""
    console = _console()
    _store(cache, mirror).fetch_all(lambda model, step: console.print(f"{model}: {step}"), push)


@models_app.command("verify")
def models_verify(cache: Cache = None, mirror: Mirror = None) -> None:
    """Hash every cached file again; exit code 3 when one is missing or damaged."""
    from deid.errors import ModelError

    states = _store(cache, mirror).verify_all()
    _print_pairs("models", states)
    bad = [name for name, state in states.items() if state != "ok"]
    if bad:
        raise ModelError(f"{', '.join(bad)}: not as registered; run deid models fetch")


@gallery_app.command("show")
def gallery_show(
    path: Annotated[Path | None, typer.Argument(help="Parquet file; default: the packaged one.")] = None,
) -> None:
    """What a gallery holds and what it was made with; a damaged file ends with exit code 3."""
    from deid.gallery import store

    gallery = store.load(str(path) if path else None)
    shown: dict[str, Any] = {"identities": len(gallery), "style_dim": gallery.styles.shape[1]}
    _print_pairs(str(path or "default gallery"), shown | gallery.metadata)


def main() -> None:
    """Entry point: one clear line and the documented exit code for every foreseen failure."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except DeidError as error:
        typer.echo(f"deid: {error}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's usage errors
            typer.echo(f"deid: {error.format_message()}", err=True)
            sys.exit(2)
        raise
