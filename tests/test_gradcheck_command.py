"""`minialex gradcheck`: rows, one operation, a model, a user's function, and words that make no sense."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from minialex import ops
from minialex.cli import app
from minialex.testing import CASES, Case, progress, row_checks
from minialex.testing.lessons import lesson
from minialex.testing.mutants import MUTANTS, Mutant
from minialex.testing.op_options import known_ops, subject_of

Run = Callable[..., Result]

HOMEWORK = """
import numpy as np
from minialex import nn, ops
from minialex.cost import Cost
from minialex.tensor import Op

def swish(x, beta=1.0):
    return x * ops.sigmoid(x * beta)

def joined(*xs, axis=0):
    return ops.concatenate(list(xs), axis)

def picky(x):
    if x.shape[0] != 3:
        raise RuntimeError("three rows, please")
    return x * 2.0

class TwiceOp(Op):
    def __init__(self, by=2.0):
        self.by = by
    def shape(self, x):
        return x
    def cost(self, x, itemsize=4):
        return Cost.of(1, x, x, itemsize=itemsize)
    def forward(self, x):
        return self.by * x
    def backward(self, dy):
        return (2.0 * dy,)

class CrashOp(TwiceOp):
    def backward(self, dy):
        return (dy[5],)

def crash(x):
    return CrashOp()(x)

def chatty(x):
    print("hello")
    return x * 2.0

def linear(x, w, scale=1.0):
    return scale * x @ w.T

def linear_backward(dy, x, w, scale=1.0):
    return scale * dy @ w, scale * dy.T @ x

def linear_forgets(dy, x, w):
    return dy @ w, dy.T @ x

def with_inputs(x, w):
    return x @ w

with_inputs.gradcheck_inputs = [np.ones((2, 3)), np.arange(6.0).reshape(3, 2)]
net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
number = 3

def for_numpy(x):
    return np.maximum(x, 0)

def gives_an_array(x):
    return np.tanh(x.numpy())

def returns_none(x):
    x * 2.0

def too_few():
    return 1.0

def power(x, cubed=False):
    return x**3 if cubed else x**2

def square_backward(dy, x):
    return 2 * x * dy

class Half(Op):
    def forward(self, x):
        return x / 2

class Net(nn.Module):
    pass
"""


@pytest.fixture(scope="module")
def gradcheck() -> Run:
    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(app, ["gradcheck", *map(str, arguments)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


@pytest.fixture(scope="module")
def homework(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("homework") / "homework.py"
    file.write_text(HOMEWORK)
    return file


@pytest.fixture(autouse=True)
def path_as_before() -> Iterator[None]:
    before = list(sys.path)
    yield
    sys.path[:] = before


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> list[Case]:
    rows = [case for case in CASES if case.op.name in ("add", "relu", "softmax")]
    monkeypatch.setattr(row_checks, "CASES", rows)
    return rows


def mutant_named(name: str) -> Mutant:
    return next(mutant for mutant in MUTANTS if mutant.name == name)


WRONG_SOFTMAX = mutant_named("softmax without cross terms")


# -------------------------------------------------------------------------------------------------- rows


def test_all_rows(gradcheck: Run, few_rows: list[Case]) -> None:
    result = gradcheck()
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["add", "relu", "softmax"]
    assert all(" ok " in line for line in lines[:-1])
    found = re.fullmatch(
        rf"all {len(few_rows)} rows hold: worst error (\S+) in relative norm, in \d+\.\d s", lines[-1]
    )
    assert found
    assert 0 < float(found[1]) < 1e-6


def test_the_rows_of_one_operation(gradcheck: Run) -> None:
    result = gradcheck("index")
    assert result.exit_code == 0, result.output
    rows = [case.label for case in CASES if case.op.name == "index"]
    assert [line.split("  ")[-1] for line in result.stdout.splitlines()[:-1]] == rows


def test_rows_as_json(gradcheck: Run, few_rows: list[Case]) -> None:
    found = json.loads(gradcheck("--json", "--seed", 4).stdout)
    assert found["ok"] is True
    assert [row["label"] for row in found["rows"]] == [case.label for case in few_rows]
    assert 0 < found["worst_relative_error"] < 1e-6
    assert found["settings"] == {"seed": 4, "variant": None, "device": "cpu"}


def test_a_wrong_row_ends_with_6_and_its_report(gradcheck: Run, few_rows: list[Case]) -> None:
    with WRONG_SOFTMAX.planted():
        result, found = gradcheck(), gradcheck("--json")
    assert result.exit_code == found.exit_code == 6
    # Of one class alone the gradient is zero, and so it is far from where softmax bends.
    failed = [case for case in few_rows if case.op.name == "softmax" and case.inputs[0].shape != (2, 1)][:-1]
    assert f"{len(failed)} of {len(few_rows)} rows failed" in result.stdout
    assert "gradients: gradcheck: " in result.stdout
    assert result.stderr == ""
    rows = [row for row in json.loads(found.stdout)["rows"] if row["failure"]]
    assert {row["op"] for row in rows} == {"softmax"}
    assert rows[0]["relative_error"] is None
    assert rows[0]["report"]["inputs"][0]["counts"]["wrong"] > 0


def test_the_seed_is_another_experiment(gradcheck: Run, few_rows: list[Case]) -> None:
    errors = [json.loads(gradcheck("softmax", "--json", "--seed", seed).stdout) for seed in (0, 0, 1)]
    first, again, other = ([row["relative_error"] for row in found["rows"]] for found in errors)
    assert first == again != other


def test_tolerances_reach_the_rows(gradcheck: Run, few_rows: list[Case]) -> None:
    assert gradcheck("softmax", "--atol", 0, "--rtol", 1e-14).exit_code == 6
    assert gradcheck("softmax", "--atol", 1e-3, "--eps", 1e-3).exit_code == 0


@pytest.mark.parametrize("variant", ["reference", "array", "numba"])
def test_a_variant(gradcheck: Run, few_rows: list[Case], variant: str) -> None:
    result = gradcheck("--variant", variant, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert not any(row["skipped"] for row in found["rows"])
    assert found["settings"]["variant"] == variant


def test_a_variant_that_some_kernels_do_not_have(
    gradcheck: Run, few_rows: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    from minialex.kernels import softmax

    monkeypatch.delitem(softmax.softmax_forward.variants, "array")
    result = gradcheck("--variant", "array")
    assert result.exit_code == 0, result.output
    assert "no such variant" in result.stdout
    assert "rows were not checked: their kernels have no variant 'array'" in result.stdout


def test_a_bug_in_one_variant_only(
    gradcheck: Run, few_rows: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    from minialex.kernels import softmax

    kernel = softmax.softmax_backward
    right = kernel.variants["array"]

    def wrong(*arguments: Any) -> None:
        right(*arguments)
        arguments[-1][...] *= 2.0

    monkeypatch.setitem(kernel.variants, "array", wrong)
    assert gradcheck("--variant", "reference").exit_code == 0
    result = gradcheck("softmax", "--variant", "array")
    assert result.exit_code == 6
    assert "2 times too large" in result.stdout


@pytest.mark.emulator
@pytest.mark.slow
def test_the_emulated_device(gradcheck: Run, few_rows: list[Case]) -> None:
    pytest.importorskip("minialex.emulator")
    for words in (["--device", "cuda-emulated"], ["--variant", "cuda"]):
        result = gradcheck(*words)
        assert result.exit_code == 0, result.output
    assert gradcheck("relu", "--x", "2,3", "--device", "cuda-emulated").exit_code == 0


# --------------------------------------------------------------------------------- one operation with shapes


def test_one_operation_with_shapes(gradcheck: Run) -> None:
    words = ["conv2d", "--x", "2,3,9,8", "--weight", "4,3,5,3", "--stride", "2", "--padding", "2"]
    result = gradcheck(*words)
    assert result.exit_code == 0, result.output
    assert "x, shape (2, 3, 9, 8): 0 of 432 elements wrong" in result.stdout
    assert "weight, shape (4, 3, 5, 3): 0 of 180 elements wrong" in result.stdout
    assert f"minialex gradcheck {' '.join(words)} --seed 0" in result.stdout


@pytest.mark.parametrize(
    "line",
    [
        "conv2d --x 1,4,7,8 --weight 2,2,2,3 --bias 2 --stride 2,1 --padding 0,1,2,0 --dilation 2 --groups 2",
        "conv2d --x=1x1x4x4 --weight=1x1x3x3 --padding=(1,2)",
        "max_pool2d --x 1,2,7,7 --kernel-size 3 --stride 2 --ceil-mode",
        "max_pool2d --x 1,2,7,7 --kernel_size 3,2 --no-ceil-mode",
        "avg_pool2d --x 1,2,5,5 --kernel-size 3 --padding 1 --no-count-include-pad",
        "avg_pool2d --x 1,2,5,5 --kernel-size 3 --padding 1 --count-include-pad false",
        "adaptive_avg_pool2d --x 1,2,5,7 --output-size 2,3",
        "local_response_norm --x 2,5,2,2 --size 3 --alpha 1.0 --beta .75 --k 2 --dialect paper",
        "softmax --x 2,3 --axis -1",
        "sum --x 2,3,4 --axis 0,2 --keepdims",
        "mean --x 2,3 --axis none",
        "concatenate --tensors 2,3 --tensors 2,1 --axis 1",
        "cross_entropy --logits 3,5 --labels 2,0,4 --label-smoothing 0.1",
        "cross_entropy --logits 3,5 --reduction sum",
        "dropout --x 4,5 --p 0.3",
        "dropout --x 4,5 --key 1,2,3",
        "reshape --x 2,6 --shape 3,4",
        "transpose --x 2,3,4 --axes 2,0,1",
        "pow --a 2,3 --b 3",
        "log --x 7",
        "neg --x ()",
        "matmul --a 2,3 --b 3,4",
        "linear --x 2,3 --weight 4,3 --bias 4",
    ],
)
def test_what_an_operation_takes(gradcheck: Run, line: str) -> None:
    result = gradcheck(*line.split(), "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["relative_error"] < 1e-6


def test_every_public_operation_has_a_row_in_the_table() -> None:
    functions = {name for name in ops.__all__ if name.islower()}
    assert functions <= set(known_ops())
    for name in known_ops():
        assert subject_of(name).options  # KeyError for an annotation without a kind.


def test_a_parameter_changes_what_is_checked(gradcheck: Run) -> None:
    words = ["conv2d", "--x", "1,2,6,6", "--weight", "2,2,3,3", "--json"]
    one, two = (json.loads(gradcheck(*words, *rest).stdout) for rest in ([], ["--stride", 2]))
    assert one["relative_error"] != two["relative_error"]


def test_a_wrong_operation_ends_with_6(gradcheck: Run) -> None:
    with WRONG_SOFTMAX.planted():
        result = gradcheck("softmax", "--x", "2,3")
        found = gradcheck("softmax", "--x", "2,3", "--json")
    assert result.exit_code == found.exit_code == 6
    assert "6 of 6 elements have a wrong gradient" in result.stdout
    assert json.loads(found.stdout)["counts"]["wrong"] == 6


def test_help_of_one_operation(gradcheck: Run) -> None:
    text = gradcheck("conv2d", "--help").output
    for option in ("--x", "--weight", "--bias", "--stride", "--padding", "--dilation", "--groups"):
        assert option in text
    assert "--kernel-size" not in text
    assert "--kernel-size" in gradcheck("max_pool2d", "--help").output


def test_help_of_a_model_and_of_a_users_function(gradcheck: Run, homework: Path) -> None:
    assert "--image-size" in gradcheck("--model", "lenet5", "--help").output
    text = gradcheck("--function", f"{homework}:swish", "--help").output
    assert "[default: 1.0]" in text
    assert "--beta" in text
    assert "--classes" not in text


def test_help_of_what_there_is_not(gradcheck: Run) -> None:
    assert "did you mean 'conv2d'?" in gradcheck("conv2", "--help").output
    assert "checks its rows" in gradcheck("index", "--help").output


def test_help_says_which_words_are_taken(gradcheck: Run) -> None:
    assert "paper or torch" in gradcheck("local_response_norm", "--help").output
    assert "--no-training  " in gradcheck("dropout", "--help").output


def test_a_pair_gets_its_switches(gradcheck: Run, homework: Path) -> None:
    words = ["--function", f"{homework}:power", "--backward", f"{homework}:square_backward", "--x", "3"]
    assert gradcheck(*words).exit_code == 0
    assert gradcheck(*words, "--cubed").exit_code == 6


def test_help_speaks_no_python(gradcheck: Run) -> None:
    text = gradcheck("--help").output
    assert not re.search(r"[{}]|list\[", text)
    assert "--function" in text


def test_the_list(gradcheck: Run) -> None:
    lines = gradcheck("--list").output.splitlines()
    assert len(lines) == len(known_ops()) + 1
    assert any(line.startswith("conv2d --x SHAPE --weight SHAPE [--bias SHAPE]") for line in lines)
    assert any(line.startswith("index ") for line in lines)


# ------------------------------------------------------------------------------------------------- models


def test_a_model(gradcheck: Run) -> None:
    result = gradcheck("--model", "lenet5", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [part["name"] for part in found["inputs"]][:2] == ["x", "features.0.weight"]
    assert found["inputs"][0]["shape"] == [2, 1, 28, 28]
    assert found["relative_error"] < 1e-4
    assert found["repeat"] == "minialex gradcheck --model lenet5 --seed 0"


def test_a_model_with_another_batch(gradcheck: Run) -> None:
    result = gradcheck("--model", "lenet5", "--x", "3,1,28,28", "--classes", 3)
    assert result.exit_code == 0, result.output
    assert "x, shape (3, 1, 28, 28)" in result.stdout
    assert "classifier.5.weight, shape (3, 84)" in result.stdout


def test_a_wrong_model(gradcheck: Run) -> None:
    with mutant_named("linear averages the bias gradient over the images").planted():
        result = gradcheck("--model", "lenet5")
    assert result.exit_code == 6
    assert "classifier.5" in result.stdout


# ---------------------------------------------------------------------------------------- users' functions


@pytest.mark.parametrize(
    "line",
    [
        "swish --x 2,3",
        "swish --x 2,3 --beta 1.5",
        "joined --xs 2,3 --xs 1,3",
        "TwiceOp --x 4",
        "with_inputs",
        "net --x 5,4",
    ],
)
def test_a_function_of_the_users(gradcheck: Run, homework: Path, line: str) -> None:
    name, *words = line.split()
    result = gradcheck("--function", f"{homework}:{name}", *words, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["relative_error"] < 1e-6


def test_what_a_function_prints_stays_out_of_the_json(gradcheck: Run, homework: Path) -> None:
    words = ["--function", f"{homework}:chatty", "--x", 3]
    assert "hello" in gradcheck(*words).stdout
    result = gradcheck(*words, "--json")
    assert json.loads(result.stdout)["ok"] is True
    assert "hello" in result.stderr


def test_a_function_by_its_module(gradcheck: Run, homework: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(homework.parent)
    monkeypatch.delitem(sys.modules, "homework", raising=False)  # Other tests have homework, too.
    result = gradcheck("--function", "homework:swish", "--x", "3")
    assert result.exit_code == 0, result.output
    assert "minialex gradcheck --function homework:swish --x 3 --seed 0" in result.stdout


def test_a_wrong_op_of_the_users(gradcheck: Run, homework: Path) -> None:
    result = gradcheck("--function", f"{homework}:TwiceOp", "--x", 4, "--by", 8.0)
    assert result.exit_code == 6
    assert "0.25" in result.stdout or "4 times too small" in result.stdout


def test_a_pair_of_numpy_functions(gradcheck: Run, homework: Path) -> None:
    words = ["--function", f"{homework}:linear", "--x", "2,3", "--w", "4,3", "--scale", "2.0"]
    assert gradcheck(*words, "--backward", f"{homework}:linear_backward").exit_code == 0
    result = gradcheck(*words, "--backward", f"{homework}:linear_forgets")
    assert result.exit_code == 6
    assert "2 times too small" in result.stdout or "0.5 times" in result.stdout


def test_what_a_backward_raises_is_told_with_its_line(gradcheck: Run, homework: Path) -> None:
    result = gradcheck("--function", f"{homework}:crash", "--x", 3)
    line = HOMEWORK.splitlines().index("        return (dy[5],)") + 1
    assert result.exit_code == 6
    assert "IndexError" in result.stderr
    assert f"homework.py, line {line})" in result.stderr


# ------------------------------------------------------------------------------------- the mutation score


def test_the_mutation_score_of_one_operation(gradcheck: Run) -> None:
    mutants = [mutant for mutant in MUTANTS if mutant.label == "softmax"]
    result = gradcheck("softmax", "--mutate")
    assert result.exit_code == 0, result.output
    assert f"mutation score 100 %: {len(mutants)} of {len(mutants)} planted bugs killed" in result.stdout
    found = json.loads(gradcheck("softmax", "--mutate", "--json").stdout)
    assert found["score"] == 1.0
    assert {entry["name"] for entry in found["mutants"]} == {mutant.name for mutant in mutants}


def test_a_survivor_ends_with_6(gradcheck: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import nullcontext

    from minialex.testing import commands

    harmless = Mutant("nothing at all", WRONG_SOFTMAX.subject, nullcontext)
    monkeypatch.setattr(commands, "MUTANTS", [harmless])
    result = gradcheck("--mutate")
    assert result.exit_code == 6
    assert "SURVIVED: softmax: nothing at all" in result.stdout


# --------------------------------------------------------------------------------------- lessons and pictures


def test_a_lesson(gradcheck: Run) -> None:
    question = gradcheck("--lesson", 2)
    assert question.exit_code == 0, question.output
    assert "What is it?" in question.stdout
    assert lesson(2).mutant not in question.stdout
    wrong = gradcheck("--lesson", 2, "--answer", "factor")
    assert wrong.exit_code == 1
    assert wrong.stdout.startswith("No, it is not 'factor'")
    right = gradcheck("--lesson", 2, "--answer", "sign")
    assert right.exit_code == 0
    assert lesson(2).mutant in right.stdout
    assert json.loads(gradcheck("--lesson", 2, "--json").stdout)["choices"] == list(lesson(2).choices)
    assert json.loads(gradcheck("--lesson", 2, "--answer", "sign", "--json").stdout)["right"] is True


@pytest.mark.parametrize("words", ["relu --x 2,3", "--model lenet5 --x 1,1,28,28"])
def test_a_picture(gradcheck: Run, tmp_path: Path, words: str) -> None:
    picture = tmp_path / "gradients.png"
    result = gradcheck(*words.split(), "--plot", picture)
    assert result.exit_code == 0, result.output
    assert f"picture: {picture}" in result.stdout
    with Image.open(picture) as image:
        assert min(image.size) > 300


def test_a_picture_of_a_wrong_gradient(gradcheck: Run, tmp_path: Path) -> None:
    picture = tmp_path / "gradients.png"
    with WRONG_SOFTMAX.planted():
        result = gradcheck("softmax", "--x", "2,3", "--plot", picture, "--json")
    assert result.exit_code == 6
    assert json.loads(result.stdout)["ok"] is False
    assert picture.stat().st_size > 10_000


# ----------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("conv3d", 2, "unknown operation 'conv3d': did you mean 'conv2d'?"),
        ("conv2d --x 1,2,3,3", 2, "conv2d needs --weight: a shape"),
        ("conv2d --x 1,2,3,3 --weight 1,1,2,2", 2, "x has C=2 but weight expects C=1"),
        ("conv2d --x 1,2,3,3 --weight 1,2,4,4", 2, "no window fits"),
        (
            "conv2d --x 1,2,a,3 --weight 1,2,2,2",
            2,
            "conv2d: --x takes a shape, such as 2,3,13,13, got '1,2,a,3'",
        ),
        ("conv2d --x 1,-2,3,3 --weight 1,2,2,2", 2, "an extent is below 0"),
        ("conv2d --x 99999,99999,9,9 --weight 1,2,2,2", 2, "elements are more than"),
        ("conv2d --x 1,2,3,3 --weight", 2, "conv2d: --weight needs a shape"),
        ("conv2d --x 1,2,3,3 --x 1,2,3,3", 2, "conv2d: --x was given twice"),
        ("conv2d --x 1,2,3,3 --wieght 1,2,2,2", 2, "conv2d has no option --wieght; did you mean --weight?"),
        ("conv2d --x 1,2,3,3 --weight 1,2,2,2 --stride 1,2,3", 2, "--stride takes a whole number or a pair"),
        ("conv2d --x 1,2,3,3 --weight 1,2,2,2 --stride 0", 2, "stride must be at least 1"),
        ("conv2d --x 1,2,3,3 --weight 1,2,2,2 --groups 1.5", 2, "--groups takes a whole number, got '1.5'"),
        ("conv2d 1,2,3,3", 2, "'1,2,3,3' belongs to no option"),
        ("max_pool2d --x 1,1,3,3 --kernel-size 2 --ceil-mode perhaps", 2, "--ceil-mode takes true or false"),
        ("local_response_norm --x 1,3,2,2 --size 3 --dialect caffe", 2, "dialect must be 'paper' or 'torch'"),
        ("cross_entropy --logits 2,3 --labels 0,7", 2, "7"),
        ("index --x 3", 2, "index: its inputs cannot be chosen"),
        ("flatten", 2, "flatten needs --x"),
        ("relu --x 0", 2, "no elements"),
        ("relu --x 2 --eps 1e-300", 2, "--eps must lie between"),
        ("relu --x 2 --eps 10", 2, "--eps must lie between"),
        ("local_response_norm --x 1,2,3,3", 2, "needs --size: a whole number and --dialect: paper or torch"),
        ("--sed 3", 2, "no such option: --sed; did you mean --seed?"),
        ("--x 2,3", 2, "no such option: --x; "),
        ("--seed many", 2, "--seed"),
        ("--seed -1", 2, "--seed must be at least 0"),
        ("--eps 0", 2, "--eps must lie between 1e-13 and 1, got 0"),
        ("--rtol nan", 2, "--rtol must be a number"),
        ("--variant cupy", 2, "unknown kernel variant 'cupy': expected one of reference, array, numba, cuda"),
        ("--device tpu", 5, "unknown device 'tpu'"),
        ("--device cuda:99", 5, "cuda:99"),
        ("--model resnet", 2, "unknown model 'resnet'"),
        ("--model lenet5 --x 1,3,28,28", 2, "(1, 3, 28, 28)"),
        ("--model lenet5 --classes 0", 2, "classes must be at least 1"),
        ("--model lenet5 --image-size 30", 2, "28 x 28"),
        ("--model lenet5 --weight 3", 2, "--model lenet5 has no option --weight"),
        ("--model lenet5 --atol 1", 2, "use --rtol"),
        ("relu --model lenet5", 2, "the operation relu and --model lenet5: one of them at a time"),
        ("--function homework", 2, "--function takes MODULE:NAME or FILE.py:NAME, got 'homework'"),
        ("--function nowhere:f", 2, "there is no module 'nowhere'"),
        ("--function nowhere.py:f", 2, "there is no file nowhere.py"),
        ("--backward nowhere.py:f", 2, "--backward MODULE:NAME needs --function"),
        ("--plot picture.png", 2, "--plot draws"),
        ("relu --plot picture.png", 2, "--plot draws"),
        ("relu --x 2 --plot picture", 2, "--plot takes a file ending in .png"),
        ("relu --x 2 --plot nowhere/picture.png", 2, "there is no folder nowhere"),
        ("--lesson 99", 2, "there is no lesson 99"),
        ("--lesson 1 --answer dragons", 2, "no kind of fault is named in 'dragons'"),
        ("--answer sign", 2, "--answer needs --lesson"),
        ("relu --lesson 1", 2, "stands alone"),
        ("relu --x 2 --mutate", 2, "--mutate plants bugs"),
        ("flatten --mutate", 2, "--mutate plants bugs"),
    ],
)
def test_errors(gradcheck: Run, line: str, code: int, message: str) -> None:
    result = gradcheck(*line.split())
    assert result.exit_code == code, result.output
    assert message in " ".join(result.stderr.split())
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("swosh --x 2", "has no 'swosh'; did you mean 'swish'?"),
        ("number", "int cannot be called"),
        ("swish", "needs --x: a shape"),
        ("swish --y 3", "has no option --y"),
        ("picky --x 2", "RuntimeError: three rows, please"),
        ("net", "needs --x"),
        ("net --x 5,5", "5"),
        ("swish --x 2 --backward FILE:nothing", "has no 'nothing'; it has "),
        ("for_numpy --x 2", "does not support ufuncs (__array_ufunc__=None)"),
        ("for_numpy --x 2", "--backward FILE.py:NAME"),
        ("gives_an_array --x 2", "must give one Tensor, got ndarray; write it with minialex.ops"),
        ("returns_none --x 2", "must give one Tensor, got NoneType; did it forget `return`?"),
        ("for_numpy --x 2 --backward FILE:too_few", "takes dy and then the inputs of forward"),
        ("Half --x 2 --backward FILE:too_few", "Half is an Op, which has its own backward"),
        ("Half --x 2", "Half must define shape"),
        ("Net --x 2,3", "Net is a class; write `net = Net(...)` in the file"),
        ("swish --x 2 --backward FILE:number", "--backward: int cannot be called"),
    ],
)
def test_errors_in_a_users_file(gradcheck: Run, homework: Path, words: str, message: str) -> None:
    name, *rest = words.replace("FILE", str(homework)).split()
    result = gradcheck("--function", f"{homework}:{name}", *rest)
    assert result.exit_code == 2, result.output
    assert message in result.stderr


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(x):\n    return x +\n", "SyntaxError"),
        ("import nonsense_that_is_not_there\n", "ModuleNotFoundError"),
        ("raise SystemExit(3)\n", "SystemExit"),
        ("x = [1][1]\n", "IndexError: list index out of range"),
    ],
)
def test_a_file_that_cannot_be_imported(gradcheck: Run, tmp_path: Path, source: str, message: str) -> None:
    file = tmp_path / "broken.py"
    file.write_text(source)
    result = gradcheck("--function", f"{file}:f", "--x", 3)
    assert result.exit_code == 2
    assert f"importing {file} fails: {message}" in result.stderr


# ------------------------------------------------------------------------------------------- the progress bar


def test_nothing_moves_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress_bar(2) as advance:
        advance("one")
    assert capsys.readouterr() == ("", "")


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_a_bar_on_a_terminal() -> None:
    import pty
    import subprocess

    script = "from minialex.testing.progress import progress_bar\n"
    script += "with progress_bar(2) as advance:\n    advance('first'); print('result'); advance('second')\n"
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", script], stderr=follower, stdout=subprocess.PIPE, env=environment, check=True
    )
    os.close(follower)
    shown = os.read(leader, 100_000).decode()
    os.close(leader)
    assert done.stdout == b"result\n"
    assert "second" in shown
    assert "result" not in shown
