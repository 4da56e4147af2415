"""The configuration of an evaluation: what is measured, against which recognizers, and what is asked."""

import difflib
import os
from pathlib import Path
from typing import Any, Literal

import pydantic
import yaml
from pydantic import Field

from deid.config import Cluster, Models, Options, Section
from deid.errors import ConfigError

# The classic ways beside ours, on the same pictures: a name each for settings of the job, one pass a face.
BASELINES: dict[str, Options] = {
    "solid": {"anonymizer": "solid"},
    "blur, weak": {"anonymizer": "blur", "classic": {"blur_sigma": 0.05}},
    "blur": {"anonymizer": "blur", "classic": {"blur_sigma": 0.1}},
    "blur, strong": {"anonymizer": "blur", "classic": {"blur_sigma": 0.3}},
    "pixelate": {"anonymizer": "pixelate", "classic": {"pixelate_blocks": 8}},
    "k-Same-Pixel": {"anonymizer": "ksame-pixel"},
    "k-Same nearest, face (published)": {
        "match": {"method": "nearest"},
        "region": {"kind": "face", "scale": 1},
        "gate": {"enabled": False},
    },
    "distant, face": {"region": {"kind": "face", "scale": 1.3}},
    "distant, head": {"region": {"kind": "head"}},
}


class Source(Section):
    uri: str  # folder or s3:// prefix: pictures, or WebDataset shards
    # CSV: key (or file), subject, and where known x0, y0, x1, y1, sex (or gender), age, expression, role (enrol or
    # probe), show (yes: the picture may be shown in the report). None: every face is a person of its own, enrolled and
    # probed with the same photograph.
    labels: str | None = None


class Result(Section):
    """De-identified pictures that are there already, of this tool or any other."""

    name: str = Field(min_length=1)
    uri: str  # folder or s3:// prefix: pictures, or WebDataset shards (a run's folder)
    # key: same file name or key as the source; background: the picture whose background is nearest, as an attacker
    # finds it; else a CSV of key, result
    pairing: str = "key"


class Trial(Section):
    """A run of the job over the sources, made for this evaluation with a seed and thrown away."""

    name: str = Field(min_length=1)
    settings: Options = Field({})  # over the defaults of the job; input, output and state are set


class Thresholds(Section):
    """What is asked of the chosen treatment; the report's first page is red or green by these."""

    rank1: float = Field(0.1, ge=0, le=1)  # at most; enrolled clear, probed de-identified, worst recognizer
    auc_alike: float = Field(
        0.6, ge=0.5, le=1
    )  # at most; among people of the same sex, age and skin-tone band
    parrot: float | None = Field(None, ge=0, le=1)  # at most, rank-1; None: 1/k and its 95 % interval
    found_again: float = Field(0.99, ge=0, le=1)  # at least
    expression: float = Field(0.95, ge=0, le=1)  # at least; the worse of the two estimators


class Evaluation(Section):
    source: Source
    output: str  # folder or s3:// prefix for report.html, evaluation.json and plots; made anew
    title: str = "De-identification report"
    results: tuple[Result, ...] = ()
    trials: tuple[Trial, ...] = ()
    baselines: tuple[str, ...] | Literal["all"] = "all"  # of `BASELINES`
    chosen: str | None = (
        None  # the treatment that the first page is about; None: the first of results, then of trials
    )
    k: int | None = Field(
        None, ge=2
    )  # people promised behind a surrogate by the chosen treatment; None: nothing promised
    recognizers: tuple[
        str, ...
    ] = ()  # YAML files, see `recognizers.RecognizerConfig`; beside the pipeline's own
    thresholds: Thresholds = Thresholds()
    models: Models = Models(accept=("clean", "permissive", "restricted"))
    cluster: Cluster = Cluster()
    resamples: int = Field(1000, ge=100)  # of the bootstrap
    seed: int = 0  # of the bootstrap, the splits and the attackers' training
    show: Literal["none", "labelled", "all"] = "none"  # pictures of the source that the report may show
    actors: int | None = Field(None, ge=1)  # that look at pictures; None: one a CPU of the cluster

    @pydantic.model_validator(mode="after")
    def _named(self) -> "Evaluation":
        names = self.treatments
        if len(set(names)) < len(names) or {"clear", "grey head", "random pairs"} & set(names):
            raise ValueError(
                "results, trials and baselines need names of their own; clear, grey head and random pairs are taken"
            )
        unknown = [name for name in self.chosen_baselines if name not in BASELINES]
        if unknown:
            known = "; ".join(f'"{name}"' for name in BASELINES)
            raise ValueError(
                f"baselines: {unknown[0]!r} is unknown; use {known} (with the quotes: some hold a comma)"
            )
        if not names:
            raise ValueError("nothing to measure: give results, trials or baselines")
        if self.chosen is not None and self.chosen not in names:
            raise ValueError(f"chosen: {self.chosen!r} is none of {', '.join(names)}")
        inside = place(self.output) + "/"
        if any(inside.startswith(place(uri).rstrip("/") + "/") for uri in self._read):
            raise ValueError("output: lies in the source or in a result, whose pictures its own would be")
        return self

    @property
    def _read(self) -> list[str]:
        """Where pictures are read from."""
        return [self.source.uri, *(result.uri for result in self.results)]

    @property
    def chosen_baselines(self) -> tuple[str, ...]:
        return tuple(BASELINES) if self.baselines == "all" else self.baselines

    @property
    def treatments(self) -> list[str]:
        """Names of all that is measured: results, trials, baselines."""
        given = [result.name for result in self.results] + [trial.name for trial in self.trials]
        return given + list(self.chosen_baselines)

    @property
    def favourite(self) -> str:
        """Name of the treatment that the first page is about."""
        return self.chosen or self.treatments[0]


def load(path: str | Path) -> Evaluation:
    """The evaluation in a YAML file; relative paths in it are taken from the working folder, as the job's are.

    Raises:
        ConfigError: it cannot be read, or a setting is wrong.
    """
    try:
        raw = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        if not isinstance(raw, dict):
            raise ConfigError(f"{path}: an evaluation is a mapping with at least source and output")
        return Evaluation.model_validate(raw)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}; give an evaluation's YAML file"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: no text; give an evaluation's YAML file") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}" if where else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    except pydantic.ValidationError as error:
        raise ConfigError(f"{path}: {'; '.join(map(_line, error.errors()))}") from None


def _known(path: list[str]) -> list[str]:
    """Names of the settings at a place of the configuration."""
    sections: dict[str, type[Section]] = {
        "source": Source,
        "thresholds": Thresholds,
        "results": Result,
        "trials": Trial,
    }
    return list((sections.get(path[0], Evaluation) if path else Evaluation).model_fields)


def _line(error: Any) -> str:
    names = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(names[-1], _known(names[:-1]), n=1, cutoff=0.5)
        return f"{'.'.join(names)} is no setting" + (f"; did you mean {near[0]}?" if near else "")
    said = str(error["msg"]).removeprefix("Value error, ")
    return f"{'.'.join(names)}: {said}" if names else said


def place(uri: str) -> str:
    """An absolute path, or the s3:// prefix as it is."""
    return uri if "://" in uri else os.path.abspath(os.path.expanduser(uri))
