"""The `deid` command. Heavy imports wait until a verb needs them."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from deid import log
from deid.errors import DeidError, PromiseError
from deid.evaluation.study import cli as study

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
keys_app = typer.Typer(no_args_is_help=True, help="Make keys: for the state, for the signature.")
app.add_typer(keys_app, name="keys")
app.add_typer(study.app, name="study")

PEOPLE = ("pseudo_identities", "k", "surrogates", "min", "across_attributes", "withheld")  # of the manifest
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
def run(
    config: ConfigPath,
    debug_local: Annotated[
        bool,
        typer.Option("--debug-local", help="Show what failed in full, names of the source too; local only."),
    ] = False,
) -> None:
    """Run the job: shards in, de-identified shards and an audit out."""
    from deid import config as configuration
    from deid.pipeline import run as pipeline

    settings = configuration.load(config)
    log.set_debug(settings, debug_local)
    result = pipeline.run(settings)
    reasons = {f"not out: {reason}": count for reason, count in result.manifest["quarantine"].items()}
    people = {f"people: {name}": result.manifest["people"].get(name) for name in PEOPLE}
    shown = {name: value for name, value in people.items() if value is not None}
    _print_pairs(f"run {result.run}", result.manifest["counts"] | reasons | shown)
    for name, value in (
        ("output", result.output),
        ("public key", result.public_key),
        ("quarantine", result.quarantine),
    ):
        if value:
            _console().print(f"{name} {value}", soft_wrap=True)
    for source in result.sources:
        _console().print("{reason}: {key} in {shard}".format(**source), soft_wrap=True, markup=False)


@app.command()
def quarantine(
    uri: Annotated[str, typer.Argument(help="As the run named it.")],
    state_key: Annotated[str, typer.Option(help="The state_key of the run's configuration.")],
    out: Annotated[
        Path | None, typer.Option(help="Write it as a Parquet file instead; never overwritten.")
    ] = None,
) -> None:
    """List what did not go out and why; for the operator alone, since it names the source."""
    from deid.pipeline import plan as planning
    from deid.privacy.verify import printable
    from deid.shards import storage, tables

    found = planning.quarantined(uri, state_key)
    if out is not None:
        storage.write_bytes(str(out), tables.to_bytes(found))
        typer.echo(f"{len(found)} rows in {out}")
        return
    for row in found.to_pylist():
        typer.echo("\t".join(printable(row[name]) for name in ("reason", "key", "shard")))


@app.command()
def plan(config: ConfigPath) -> None:
    """Say what a run would do: shards, sizes, models, actors. Nothing is written."""
    from deid import config as configuration
    from deid.pipeline import plan as planning

    _print_pairs(str(config), planning.describe(configuration.load(config)))


@app.command()
def status(
    config: ConfigPath,
    run: Annotated[
        str | None, typer.Option(help="Id of a run; default: the open one, else the last.")
    ] = None,
) -> None:
    """Say how far a run is: units, pictures, faces, quarantine, rate, expected end."""
    from deid import config as configuration
    from deid.pipeline import opened, progress

    settings = configuration.load(config)
    found = progress.read(progress.place(settings.state, run or opened.latest(settings)))
    _print_pairs(str(config), progress.describe(found))


@app.command()
def abandon(config: ConfigPath) -> None:
    """Drop the run that is open in the configuration's state: what it left in state and output is deleted."""
    import secrets

    from deid import config as configuration
    from deid.pipeline import lease, opened

    settings = configuration.load(config)
    with lease.hold(settings.state, secrets.token_hex(8)):
        run = opened.abandon(settings)
    typer.echo(
        f"run {run} is dropped: what it left in state and output is deleted" if run else "no run is open"
    )


@app.command()
def demo(
    workdir: Annotated[Path, typer.Option(help="Where the corpus and the result are kept.")] = Path(".demo"),
) -> None:
    """Make a corpus of fictional people, run the job on it against a real S3 server, show what came out."""
    from deid.demo import run as demonstration

    raise typer.Exit(demonstration.main(workdir))


@app.command()
def evaluate(
    config: Annotated[Path, typer.Argument(help="YAML of an evaluation; see configs/evaluate.yaml.")],
    require: Annotated[
        bool, typer.Option("--require", help="Exit code 6 unless all that is asked is measured and met.")
    ] = False,
) -> None:
    """Measure a run, or any tool's pictures beside their sources, and write a report."""
    from deid.evaluation import run as evaluation
    from deid.evaluation import settings

    made = evaluation.run(settings.load(config))
    _print_pairs(f"{made.verdict.treatment}: {made.verdict.state}", made.verdict.lines())
    _console().print(f"report {made.output}/report.html", soft_wrap=True)
    if require and not made.verdict.holds:
        raise PromiseError("the evaluation misses what its configuration asks: see the report's first page")


@app.command()
def recommend(
    evaluations: Annotated[
        list[Path] | None,
        typer.Argument(help="Each an evaluation.json of deid evaluate; default: the one in the package."),
    ] = None,
    rank1: Annotated[
        float, typer.Option(min=0, max=1, help="Most rank-1 of clear enrolments by de-identified probes.")
    ] = 0.1,
    auc_alike: Annotated[
        float, typer.Option(min=0.5, max=1, help="Most AUC, either way round, among people of the same kind.")
    ] = 0.6,
    reverse: Annotated[
        float | None, typer.Option(min=0, max=1, help="Most rank-1, the other way round.")
    ] = None,
    auc: Annotated[
        float | None, typer.Option(min=0.5, max=1, help="Most AUC, either way round, against everybody.")
    ] = None,
    parrot: Annotated[
        float, typer.Option(min=0, max=1, help="Most rank-1 with both sides de-identified.")
    ] = 0.5,
    k: Annotated[int | None, typer.Option(min=2, help="Least people promised behind a surrogate.")] = None,
    found: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least share of faces found again.")
    ] = None,
    expression: Annotated[float | None, typer.Option(min=0, max=1, help="Least share as before.")] = None,
    sex: Annotated[float | None, typer.Option(min=0, max=1, help="Least share as before.")] = None,
    seam: Annotated[
        float | None,
        typer.Option(min=0, help="Most gradient along the seam, result over source; 1 is no seam."),
    ] = None,
    by: Annotated[
        Literal["value", "bound"],
        typer.Option(help="Ask it of the value, or of the worse bound of its interval."),
    ] = "value",
) -> None:
    """Print the configuration that keeps the limits given, by measurement. Exit code 6 when none does."""
    from deid.evaluation import recommend as choice

    asked = {
        "rank1": rank1, "auc_alike": auc_alike, "reverse": reverse, "auc": auc, "parrot": parrot, "k": k,
        "found_again": found, "expression": expression, "sex": sex, "seam": seam,
    }  # fmt: skip
    typer.echo(choice.recommend(evaluations or [], asked, by), nl=False)


@app.command()
def verify(
    output_run: Annotated[str, typer.Argument(help="Folder or s3:// prefix of one finished run.")],
    key: Annotated[str, typer.Option(help="Public key of who signs: 64 hex characters or a PEM file.")],
    linkage: Annotated[
        tuple[str, str] | None,
        typer.Option(help="RAW OUT: attack the link between source shards and output, too."),
    ] = None,
    allow_repeatable: Annotated[
        bool, typer.Option("--allow-repeatable", help="Accept a run with a seed; never for a release.")
    ] = False,
) -> None:
    """Check a run's output: signature, every object, pictures, audit. Exit code 6 when anything is wrong."""
    from deid.privacy import seal
    from deid.privacy import verify as checks

    public = seal.load_public(key)
    found = checks.verify(output_run, public, lambda line: typer.echo(f"ok     {line}"), allow_repeatable)
    for finding in found:
        typer.echo(f"FAULT  {finding}")
    above = _attack(*linkage) if linkage else 0
    if found or above:
        raise PromiseError(f"{len(found)} faults, {above} attacks above chance: do not use this output")


def _attack(raw: str, out: str) -> int:
    """Print what the linkage attack can tell; how many of its lines lie above their limit."""
    import importlib

    from rich.table import Table

    table = Table("attack", "value", "chance", "limit", "", "note", title="linkage", title_justify="left")
    lines = importlib.import_module("deid.privacy.linkage").attack(raw, out)
    for line in lines:
        numbers = (f"{number:.4g}" for number in (line.value, line.chance, line.limit))
        table.add_row(line.name, *numbers, "ABOVE" if line.above else "ok", line.note)
    _console().print(table)
    return sum(bool(line.above) for line in lines)


@keys_app.command("new")
def keys_new(file: Annotated[Path, typer.Argument(help="Key file to write; never overwritten.")]) -> None:
    """Make a key file for `state_key`: with it a run's state can be opened again until the run destroys it."""
    from deid.privacy import wrapping

    wrapping.new_key_file(file)
    typer.echo(f"{file}: keep it secret; set state_key to it")


@keys_app.command("signing")
def keys_signing(
    file: Annotated[Path, typer.Argument(help="PEM file to write, and FILE.pub; never overwritten.")],
) -> None:
    """Make an Ed25519 key pair: FILE for `signing.key`, FILE.pub for those who verify."""
    from deid.privacy import seal

    public = seal.new_key_files(file)
    typer.echo(
        f"{file}: keep it secret; set signing.key to it\n{file}.pub: give it to those who verify; or: {public}"
    )


def _store(cache: str | None, mirror: str | None) -> Any:
    from deid import config as configuration
    from deid.models.store import Store

    return Store(
        configuration.Models(accept=("clean", "permissive", "restricted"), cache=cache, mirror=mirror)
    )


COMMERCIAL = {
    "clean": "allowed; attribution as the model card says",
    "permissive": "allowed by the licence of the weights; the training pictures are not cleared",
    "restricted": "unclear or excluded; ask counsel before any",
}


@models_app.command("list")
def models_list(cache: Cache = None, mirror: Mirror = None) -> None:
    """Every model: class, what it was made from, package, licence, whether it is in the cache; and the origins."""
    from rich import box
    from rich.table import Table

    store, console = _store(cache, mirror), _console()
    table = Table(
        "model", "class", "made from", "package, version, licence", title="models", box=box.HORIZONTALS
    )
    table.show_lines = True
    for row in store.rows():
        package = f"{row.package}\n{row.version}, {row.licence}, {'cached' if row.cached else 'not cached'}"
        table.add_row(row.name, row.licence_class, "\n".join(row.made_from) or "not known", package)
    console.print(table)
    title = "origins: data and models of others"
    table = Table("origin", "kind", "class", "licence", title=title, box=box.HORIZONTALS)
    table.add_column("source", overflow="fold")
    for name, origin in store.registry.origins.items():
        table.add_row(name, origin.kind, origin.licence_class, origin.licence, origin.source)
    console.print(table)
    console.print(
        "commercial use, by class", *(f"  {kind}: {text}" for kind, text in COMMERCIAL.items()), sep="\n"
    )


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
    log.setup()
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


if __name__ == "__main__":
    main()
