"""Whether one way of training is better than another: runs of both, judged on the same photographs.

    python benchmarks/compare_recipes.py --a runs/course-0 runs/course-1 --b runs/ours-0 runs/ours-1
        --names course ours --json comparison.json

The runs of both lists share a split (one --split-seed) and belong together by their order, as a rule by
their seed. The table has each run's accuracy, with one crop and with ten, their means, and the average of a
recipe's networks. Differences are taken photograph by photograph: the bootstrap draws photographs, each with
the answers of all runs about it; the test is McNemar's, and the randomisation test for several runs at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measuring import machine, now

from minialex.backend import num_threads
from minialex.errors import MinialexError, UsageError
from minialex.train.config import TrainConfig
from minialex.train.ensembles import (
    Comparison,
    Effect,
    Network,
    Row,
    average_row,
    crops_text,
    judge_each,
    load_networks,
)
from minialex.train.error_tables import effect_line, probability_text
from minialex.train.files import atomic_write_json
from minialex.train.judging import figures_of
from minialex.train.metrics import as_percent
from minialex.train.paired import PairedDifference, paired_difference
from minialex.train.reporter import Reporter, default_reporter, table

# Options that say nothing about how a network was trained, and the seed, in which a recipe's runs differ.
NO_PART_OF_A_RECIPE = frozenset({"seed", "data", "device", "workers", "save_every", "on_bad_image"})


@dataclass(frozen=True)
class Recipe:
    """Runs of one recipe in order, and what they answered: rows[crops][run]."""

    name: str
    networks: list[Network]
    rows: dict[int, list[Row]]

    def correct(self, crops: int) -> list[Any]:
        """Right or wrong, (runs, pictures)."""
        return [row.correct for row in self.rows[crops]]

    def accuracies(self, crops: int) -> list[float]:
        """Of each run."""
        return [row.evaluation.accuracy for row in self.rows[crops]]

    def average(self, crops: int) -> Row | None:
        """The average of the runs' networks; None for one run."""
        return average_row(self.rows[crops]) if len(self.networks) > 1 else None

    @property
    def crops(self) -> list[int]:
        """The numbers of crops that were tried."""
        return sorted(self.rows)

    def options(self) -> list[dict[str, Any]]:
        """What each run was trained with, without what makes no recipe."""
        # An older checkpoint lacks the options that came later: it gets their defaults.
        configs = [TrainConfig.from_dict(n.predictor.checkpoint.config).to_dict() for n in self.networks]
        return [{k: v for k, v in config.items() if k not in NO_PART_OF_A_RECIPE} for config in configs]


@dataclass(frozen=True)
class Report:
    """What was found: differences[crops], of each pair and of all; effects of techniques."""

    differences: dict[int, list[PairedDifference]]
    effects: list[Effect]


def compare(recipes: Sequence[Recipe], seed: int) -> dict[int, list[PairedDifference]]:
    """For each number of crops the second recipe less the first: pair by pair, then of all runs at once."""
    first, second = recipes
    found = {}
    for crops in first.crops:
        pairs = [*zip(first.correct(crops), second.correct(crops), strict=True)]
        if len(pairs) > 1:
            pairs.append((first.correct(crops), second.correct(crops)))
        found[crops] = [paired_difference(a, b, seed=seed) for a, b in pairs]
    return found


def techniques(recipe: Recipe, seed: int) -> list[Effect]:
    """What ten crops and averaging change for the runs of a recipe."""
    found, count = [], len(recipe.networks)
    if len(recipe.crops) > 1:
        one, ten = (recipe.correct(crops) for crops in recipe.crops)
        of = f"{recipe.name}, {count} run{'s' * (count > 1)}"
        found.append(Effect("10 crops instead of 1", of, paired_difference(one, ten, seed=seed)))
    for crops in recipe.crops:
        if (average := recipe.average(crops)) is not None:
            difference = paired_difference(recipe.correct(crops), average.correct, seed=seed)
            of = f"{recipe.name}, {crops_text(crops)}"
            found.append(
                Effect(f"the average of {count} networks instead of one of them, on average", of, difference)
            )
    return found


# ---------------------------------------------------------------------------------------- to be read


def pair_names(recipes: Sequence[Recipe]) -> list[str]:
    """The pairs by their seeds, "seed 0" and so on; by numbers where both runs of a pair do not share one."""
    first, second = ([n.predictor.checkpoint.seed for n in recipe.networks] for recipe in recipes)
    if first == second and len(set(first)) == len(first):
        return [f"seed {seed}" for seed in first]
    return [f"pair {number}" for number in range(1, len(first) + 1)]


def accuracy_table(recipes: Sequence[Recipe]) -> str:
    """Each run's accuracy, the mean, and the accuracy of the average of the networks."""
    pairs = pair_names(recipes)
    several = len(pairs) > 1
    heading = ["accuracy", *pairs, *(["mean", f"average of {len(pairs)}"] if several else [])]
    rows = [tuple(heading)]
    for recipe in recipes:
        for crops in recipe.crops:
            cells = [f"{recipe.name}, {crops_text(crops)}", *map(as_percent, recipe.accuracies(crops))]
            if (average := recipe.average(crops)) is not None:
                cells += [
                    as_percent(float(np.mean(recipe.accuracies(crops)))),
                    as_percent(average.evaluation.accuracy),
                ]
            rows.append(tuple(cells))
    return table(rows, right=tuple(range(1, len(heading))))


def difference_table(recipes: Sequence[Recipe], differences: Sequence[PairedDifference], crops: int) -> str:
    """The second recipe less the first, pair by pair and all at once."""
    first, second = (recipe.name for recipe in recipes)
    names = pair_names(recipes)
    rows = [
        (
            f"{second} - {first}, {crops_text(crops)}",
            "points",
            "95 % interval",
            "gained",
            "lost",
            "p, two-sided",
        )
    ]
    # One pair alone is all there is, and has one row.
    for name, found in zip([*names, f"all {len(names)}"], differences, strict=False):
        low, high = f"{100 * found.low:+.1f}", f"{100 * found.high:+.1f}"
        p = probability_text(found.test.p_value).removeprefix("p = ").removeprefix("p ")
        points = f"{100 * found.difference:+.1f}"
        rows.append((name, points, f"{low} to {high}", str(found.test.gained), str(found.test.lost), p))
    return table(rows, right=(1, 2, 3, 4, 5))


def options_table(recipes: Sequence[Recipe]) -> str | None:
    """The options in which the first runs of both recipes differ; None if in none."""
    first, second = (recipe.options()[0] for recipe in recipes)
    names = sorted(name for name in first if first[name] != second[name])
    rows = [("option", *(recipe.name for recipe in recipes))]
    rows += [(name, str(first[name]), str(second[name])) for name in names]
    return table(rows) if names else None


def verdict(recipes: Sequence[Recipe], difference: PairedDifference, crops: int) -> str:
    """The answer in a sentence."""
    first, second = (recipe.name for recipe in recipes)
    if not difference.is_shown:
        return f"With {crops_text(crops)} these pictures do not show that {first} and {second} differ."
    better, worse = (second, first) if difference.difference > 0 else (first, second)
    low, high = sorted(abs(end) for end in (difference.low, difference.high))
    points = f"{100 * abs(difference.difference):.1f} points of accuracy"
    return (
        f"With {crops_text(crops)} {better} is better than {worse} by {points}, "
        f"between {100 * low:.1f} and {100 * high:.1f} with 95 % confidence."
    )


def tell(reporter: Reporter, result: Comparison, recipes: Sequence[Recipe], report: Report) -> None:
    """Print it all."""
    pictures = len(result.rows[0].evaluation.labels)
    reporter.say(f"data: {result.description}")
    reporter.say(
        f"{pictures:,} {result.part} pictures, {len(result.classes)} classes, the same for all runs\n"
    )
    if (options := options_table(recipes)) is not None:
        reporter.say(options + "\n")
    reporter.say(accuracy_table(recipes) + "\n")
    for crops, differences in report.differences.items():
        reporter.say(difference_table(recipes, differences, crops) + "\n")
    for effect in report.effects:
        reporter.say(effect_line(effect))
    reporter.say()
    for crops, differences in report.differences.items():
        reporter.say(verdict(recipes, differences[-1], crops))
    reporter.say(
        "The intervals are about other pictures of the same kind, for these runs; what other seeds change is "
        "seen from run to run."
    )


# ------------------------------------------------------------------------------- for another program


def as_json(result: Comparison, recipes: Sequence[Recipe], report: Report) -> dict[str, Any]:
    """Every figure, with each run's right and wrong answers as a string of 1 and 0 in the pictures' order."""
    return {
        "date": now(),
        "machine": machine(num_threads()),
        "data": result.description,
        "part": result.part,
        "pictures": len(result.rows[0].evaluation.labels),
        "classes": list(result.classes),
        "split": recipes[0].networks[0].predictor.checkpoint.split_digest,
        "recipes": [_recipe_json(recipe) for recipe in recipes],
        "differences": {
            str(crops): {
                "pairs": [d.to_json() for d in differences[: len(recipes[0].networks)]],
                "all": differences[-1].to_json(),
            }
            for crops, differences in report.differences.items()
        },
        "effects": [{"change": e.change, "of": e.of, **e.difference.to_json()} for e in report.effects],
    }


def _recipe_json(recipe: Recipe) -> dict[str, Any]:
    results = []
    for crops in recipe.crops:
        average = recipe.average(crops)
        rows = [*recipe.rows[crops], *([average] if average else [])]
        results += [
            {
                "runs": list(row.names),
                "crops": crops,
                **figures_of(row.evaluation),
                "right": "".join("1" if right else "0" for right in row.correct),
            }
            for row in rows
        ]
    return {
        "name": recipe.name,
        "seeds": [network.predictor.checkpoint.seed for network in recipe.networks],
        "options": recipe.options()[0],
        "mean_accuracy": {str(crops): float(np.mean(recipe.accuracies(crops))) for crops in recipe.crops},
        "results": results,
    }


# ------------------------------------------------------------------------------------------ running


def run(options: argparse.Namespace, reporter: Reporter) -> None:
    """Judge, print, write."""
    if len(options.a) != len(options.b):
        raise UsageError(
            f"--a names {len(options.a)} runs and --b {len(options.b)}: they are compared in pairs, so name "
            "as many of both, in the same order"
        )
    if options.json is not None and not options.json.absolute().parent.is_dir():
        raise UsageError(f"--json {options.json}: there is no folder {options.json.parent}; make it first")
    networks = load_networks([*options.a, *options.b], options.device, reporter.say)
    result = judge_each(
        networks,
        reporter,
        data=options.data,
        part=options.part,
        batch_size=options.batch_size,
        crops=options.crops,
    )
    count = len(options.a)
    recipes = []
    for name, start in zip(options.names, (0, count), strict=True):
        own = {crops: result.singles(crops)[start : start + count] for crops in result.crops}
        recipes.append(Recipe(name, networks[start : start + count], own))
        if any(options != recipes[-1].options()[0] for options in recipes[-1].options()):
            reporter.warn(
                f"the runs of {name} differ in more than their seeds; the table shows the first's options"
            )
    effects = [effect for recipe in recipes for effect in techniques(recipe, options.seed)]
    report = Report(compare(recipes, options.seed), effects)
    tell(reporter, result, recipes, report)
    if options.json is not None:
        atomic_write_json(options.json, as_json(result, recipes, report))


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; the exit code is that of the `minialex` command."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument(
        "--a", nargs="+", required=True, metavar="RUN", help="folders of the first recipe's runs"
    )
    parser.add_argument(
        "--b", nargs="+", required=True, metavar="RUN", help="those of the second, in this order"
    )
    parser.add_argument("--names", nargs=2, default=["a", "b"], metavar="NAME", help="of the recipes")
    parser.add_argument("--data", help="the folder of pictures; by default that of the first run")
    parser.add_argument("--part", help="test, validation, train or all; by default test")
    parser.add_argument("--crops", type=int, default=10, choices=(1, 10), help="10 tries one crop and ten")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or auto")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap's draws")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where all figures are written")
    options = parser.parse_args(arguments)
    try:
        run(options, default_reporter())
    except MinialexError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
