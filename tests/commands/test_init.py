"""Data without a recipe: what is made of a table or a folder, that init prints what train does, a run to its end."""

import csv
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import multitune as mt
from builders import WORDS
from multitune.cli.app import main
from multitune.commands.init import LARGEST_BUDGET, init, text
from multitune.errors import UserError
from multitune.recipe_files import parse, read
from multitune.training.loading import load_corpus

LANGUAGES = ("de", "fr", "sw", "fi", "tr", "zh-Hans")


def rows(count: int) -> list[dict[str, str]]:
    """Reviews in six languages, some of them about people, some about places."""
    draw = random.Random(0)
    made = []
    for n in range(count):
        code = LANGUAGES[n % 6]
        people, places, others = WORDS[("aa", "bb", "cc")[n % 3]]
        about = n // 6 % 2
        said = [*draw.choices(others, k=4), *draw.choices(places if about else people, k=3)]
        made.append({"id": str(n), "lang": code, "review": " ".join([*said, f"n{n}"]), "stars": str(about + 1)})
    return made


def write_csv(path: Path, made: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(made[0]))
        writer.writeheader()
        writer.writerows(made)
    return path


def write_jsonl(path: Path, made: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


@pytest.fixture
def reviews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_csv(Path("reviews.csv"), rows(360))


COLUMNS = {"language": "lang", "text": "review", "label": "stars"}
BUDGETS = {
    # rows, overrides, gradient computations
    "three passes of four fifths": (360, {}, 54),
    "larger batches": (360, {"batch_size": 32}, 27),
    "at most so many": (3000, {}, LARGEST_BUDGET),
    "as said": (360, {"budget": 7}, 7),
}


@pytest.mark.parametrize(("count", "overrides", "budget"), BUDGETS.values(), ids=BUDGETS)
def test_the_budget_fits_the_data(tmp_path: Path, count: int, overrides: dict[str, Any], budget: int) -> None:
    file = init(write_csv(tmp_path / "reviews.csv", rows(count)), overrides)
    assert (file.name, file.run["budget"], file.run["columns"]) == ("reviews", budget, COLUMNS)
    assert file.resolve().method == "sequential_reptile"


def one_file(folder: Path) -> Path:
    return write_jsonl(folder / "all.jsonl", rows(360))


def no_language(folder: Path) -> Path:
    return write_jsonl(folder / "train.jsonl", [{"t": row["review"], "label": row["stars"]} for row in rows(120)])


def capitals(folder: Path) -> Path:
    return write_csv(folder / "Reviews.CSV", rows(360))


def only_table(folder: Path) -> Path:
    return one_file(folder).parent


def splits(folder: Path) -> Path:
    for split, count in (("train", 120), ("dev", 24), ("test", 30)):
        write_csv(folder / f"{split}.csv", rows(count))
    return folder


def file_a_language(folder: Path) -> Path:
    for code in ("de", "fr"):
        write_csv(folder / f"{code}.csv", [row for row in rows(360) if row["lang"] == code])
    return folder


def spreadsheet(folder: Path) -> Path:
    """A table as Excel saves it: a mark, CRLF, columns without a name, lines of commas at the end."""
    path = write_csv(folder / "reviews.csv", rows(360))
    lines = path.read_text().splitlines()
    path.write_text("\ufeff" + "".join(f"{line},,\n" for line in lines) + ",,,,,\n" * 3, newline="\r\n")
    return path


def treebank(folder: Path) -> Path:
    word = "1\tana\t_\tNOUN\t_\t_\t_\t_\t_\t_\n"
    for split in ("train", "dev"):
        (folder / f"{split}-de.conllu").write_text(f"{word}\n" * 32)
    return folder


def tags_a_line(folder: Path) -> Path:
    """Files of tokens and tags as CoNLL-2003 has them: a mark, CRLF, IOB2, no line end after the last sentence."""
    sentences = [f"# id {n}\nana{n} NNP B-PER\nsees VB O" for n in range(64)]
    for code in ("de", "sw"):
        (folder / f"{code}.conll").write_text("\ufeff" + "\n\n".join(sentences), encoding="utf-8", newline="\r\n")
    return folder


SHAPES: dict[str, tuple[Callable[[Path], Path], list[str], int]] = {
    # what is there, languages, budget
    "one file": (one_file, sorted(LANGUAGES), 54),
    "an ending in capitals": (capitals, sorted(LANGUAGES), 54),
    "one file of one language": (no_language, ["train"], 18),
    "a folder with one table": (only_table, sorted(LANGUAGES), 54),
    "train, dev and test": (splits, sorted(LANGUAGES), 22),
    "a table of a spreadsheet": (spreadsheet, sorted(LANGUAGES), 54),
    "a file a language": (file_a_language, ["de", "fr"], 18),
    "a treebank": (treebank, ["de"], 6),
    "a tag a line": (tags_a_line, ["de", "sw"], 19),
}


@pytest.mark.parametrize(("write", "languages", "budget"), SHAPES.values(), ids=SHAPES)
def test_what_the_data_may_be(tmp_path: Path, write: Callable[[Path], Path], languages: list[str], budget: int) -> None:
    file = init(write(tmp_path))
    assert file.run["budget"] == budget
    assert list(load_corpus(file.resolve()).train) == languages


@pytest.mark.parametrize(("tag", "kind"), [("B-LOC", "tagging"), ("O", "tagging"), ("NOUN", "pos_tagging")])
def test_tags_say_whether_they_are_of_entities(tmp_path: Path, tag: str, kind: str) -> None:
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}-de.conll").write_text(f"Ulm {tag}\n\n" * 32)
    corpus = load_corpus(init(tmp_path).resolve())
    assert (corpus.task, corpus.test["de"][0]) == (kind, {"tokens": ["Ulm"], "tags": [tag]})


def test_another_scheme_of_own_tags_is_told_and_converted(tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}-de.conll").write_text("Bad I-LOC\nUlm I-LOC\nAalen B-LOC\n\n" * 8)
    with pytest.raises(UserError, match=r"train-de.conll:1: 'I-LOC' after 'O' is not IOB2: .* scheme: iob1 converts"):
        load_corpus(init(tmp_path).resolve())
    corpus = load_corpus(init(tmp_path, {"scheme": "iob1"}).resolve())
    assert corpus.train["de"][0]["tags"] == ["B-LOC", "I-LOC", "B-LOC"]
    with pytest.raises(UserError, match="no column 'form' for tokens; token and tag are the first and last"):
        load_corpus(init(tmp_path, {"columns": {"tokens": "form", "tags": "tag"}}).resolve())


def test_a_treebank_beside_another_table_is_told(tmp_path: Path) -> None:
    """No column of a CoNLL-U file has a name that could be that of the other one."""
    treebank(tmp_path)
    for split in ("train", "dev"):
        (tmp_path / f"{split}-aa.tsv").write_text("text\tlabel\n" + "ana\tb\nbela\tc\n" * 9)
    with pytest.raises(UserError, match=r"train-de.conllu: a file of this format .* keep the folder to one format"):
        init(tmp_path)


def test_init_prints_the_recipe_of_the_data(reviews: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("init", "reviews.csv", "budget=9") == 0
    Path("recipe.yaml").write_text(capsys.readouterr().out)
    made = init(reviews, {"budget": 9})
    assert read("recipe.yaml").run == made.run
    printed = text(made)
    assert all(f"\n{key}: " in printed and "# " in printed for key in made.run)
    assert parse(printed, "printed")["path"] == "reviews.csv"


def called(*words: str) -> int:
    """Exit code of a command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["multitune", *words])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)


def test_a_table_is_trained_on_predicted_with_and_scored(
    reviews: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (f"model={tiny_model}", "learning_rate=1e-2", "precision=fp32", "budget=80")
    assert called("train", "reviews.csv", *given) == 0
    said = capsys.readouterr()
    assert "columns: {language: lang, text: review, label: stars}" in said.err
    run = Path("runs/reviews-sequential_reptile-seed0")
    saved = read(run / "recipe.yaml").resolve()
    assert (saved.path, saved.columns, saved.budget) == ("reviews.csv", COLUMNS, 80)
    result = mt.RunResult.read(run)
    assert list(result.seen) == sorted(LANGUAGES)
    assert (result.average["seen"] or 0) > 90
    assert mt.evaluate(run) == {**result.seen, **result.unseen}
    (found,) = mt.predict(run, ["ana bela coro"])
    assert found["prediction"] == "1"
    Path("new.csv").write_text("price,review\n1234567.25,ana bela coro\n")
    capsys.readouterr()
    assert called("predict", str(run), "new.csv", "-q") == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["price"], row["review"], row["prediction"]) == ("1234567.25", "ana bela coro", "1")
    assert row["scores"] == pytest.approx(found["scores"], rel=1e-4)
    assert [each["prediction"] for each in mt.predict(run, [{"review": "ana bela coro", "text": "roma"}])] == ["1"]
    for table, told in (
        ("id,comment\n1,a\n", "row 1: has no 'text' (the recipe's column 'review')"),
        ("review,a\n,b\n", "row 1: text is blank"),
    ):
        Path("new.csv").write_text(table)
        assert called("predict", str(run), "new.csv", "-q") == 2
        assert f"new.csv: {told}" in capsys.readouterr().err
    assert called("train", "reviews.csv", "--resume", "-q", *given) == 0


def test_data_counts_a_table(reviews: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("data", "reviews.csv", f"model={tiny_model}", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["language"] for row in told["records"]["rows"]] == sorted(LANGUAGES)


def run_folder(folder: Path) -> None:
    (folder / "recipe.yaml").write_text("data: panx\n")
    (folder / "metrics.jsonl").write_text("{}\n")


def comparison_folder(folder: Path) -> None:
    (folder / "mtl-seed0").mkdir()
    run_folder(folder / "mtl-seed0")
    (folder / "results.json").write_text("{}")


MISTAKES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no file": (lambda folder: None, "none.csv", "none.csv: cannot be read: No such file"),
    "no folder": (lambda folder: None, "none/such", "none/such: cannot "),
    "tags in a file of text": (lambda folder: (folder / "a.txt").write_text("a O\n"), "a.txt", "its tag a line .conll"),
    "a folder of such": (
        lambda folder: [(folder / f"{split}-de.txt").write_text("a O\n") for split in ("train", "dev")],
        ".",
        "it has dev-de.txt, train-de.txt: call a file with a token and its tag a line .conll",
    ),
    "no table": (lambda folder: None, ".", "has no table; the name of one ends in .jsonl, .csv"),
    "no row": (lambda folder: (folder / "a.csv").write_text("text,label\n"), "a.csv", "a.csv: holds no row"),
    "an array": (lambda folder: (folder / "a.jsonl").write_text("[\n1]"), "a.jsonl", "a.jsonl:1: a JSON array"),
    "a column twice": (lambda folder: (folder / "a.csv").write_text("a,a\nx,y\n"), "a.csv", "a.csv:1: column 'a'"),
    "bars": (
        lambda folder: (folder / "a.csv").write_text("lang|text\nde|x\n"),
        "a.csv",
        "a.csv:1: one column, 'lang|text'; commas or semicolons separate the columns of a .csv and "
        "tabs those of a .tsv, not '|'; save it with commas",
    ),
    "an array in a line": (lambda folder: (folder / "a.jsonl").write_text('[{"a": 1}]'), "a.jsonl", "a JSON array"),
    "lines of an old Mac": (
        lambda folder: (folder / "a.csv").write_text("a,b\rx,y\r"),
        "a.csv",
        "a.csv:1: carriage returns alone end its lines; save the file with line feeds",
    ),
    "semicolons in a .tsv": (
        lambda folder: (folder / "a.tsv").write_text("a;b\nx;y\n"),
        "a.tsv",
        "not ';'; call it .csv",
    ),
    "commas in a .tsv": (lambda folder: (folder / "a.tsv").write_text("a,b\nx,y\n"), "a.tsv", "not ','; call it .csv"),
    "a run": (run_folder, ".", "is the folder of a run; its recipe is recipe.yaml"),
    "a comparison": (
        comparison_folder,
        ".",
        "is a folder of runs, such as mtl-seed0; name their recipe's file, or runs",
    ),
    "a workbook": (
        lambda folder: (folder / "a.xlsx").write_bytes(b"PK\3\4"),
        "a.xlsx",
        "save the sheet as CSV in UTF-8",
    ),
    "JSON": (
        lambda folder: (folder / "a.json").write_text(' [\n{"a": 1}]'),
        "a.json",
        "jq -c '.[]' writes its objects",
    ),
    "another name for JSON Lines": (lambda folder: (folder / "a.ndjson").touch(), "a.ndjson", "call it .jsonl"),
    "packed otherwise": (lambda folder: (folder / "a.csv.zip").touch(), "a.csv.zip", "no recipe, and no table"),
    "a tie": (
        lambda folder: (folder / "a.csv").write_text("text,x,y\n" + "word,1,2\nword,2,1\n" * 9),
        "a.csv",
        "'columns={text: text, label: x}' or 'columns={text: text, label: y}'",
    ),
}


@pytest.mark.parametrize(("write", "path", "said"), MISTAKES.values(), ids=MISTAKES)
@pytest.mark.parametrize("command", ["init", "train", "data"])
def test_mistakes_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    write: Callable[[Path], object],
    path: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    assert called(command, path) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert said in told.err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("name", "values"), [("split", ["train", ""]), ("Split", ["x"]), ("part", ["Train", "val", "test"])]
)
def test_a_split_column_that_is_not_used_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, values: list[str]
) -> None:
    made = [row | {name: values[n % len(values)]} for n, row in enumerate(rows(60))]
    assert init(write_csv(tmp_path / "a.csv", made)).run["columns"] == COLUMNS
    assert f"the column {name!r} is not used" in caplog.text


def test_a_split_column_divides_and_the_recipe_has_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    said = ("Training", "valid", "train", "test", "TRAIN")
    made = [row | {"subset": said[n % 5]} for n, row in enumerate(rows(360))]
    file = init(write_csv(tmp_path / "a.csv", made))
    assert (file.run["columns"], file.run["budget"]) == (COLUMNS | {"split": "subset"}, round(3 * 216 / 16))
    assert parse(text(file), "recipe.yaml")["columns"] == file.run["columns"]
    corpus = load_corpus(file.resolve())
    assert [sum(map(len, split.values())) for split in (corpus.train, corpus.dev, corpus.test)] == [216, 72, 72]
    assert not caplog.messages


@pytest.mark.parametrize(
    ("names", "unused"), [(("review", "question"), "'question'"), (("sentence1", "sentence2"), ""), (("a", "b"), "'b'")]
)
def test_texts_that_are_not_used_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, names: tuple[str, str], unused: str
) -> None:
    made = [{names[0]: row["review"] + " and more", names[1]: "was it good", "stars": row["stars"]} for row in rows(60)]
    init(write_csv(tmp_path / "a.csv", made))
    assert (f"texts in {unused} are not used; columns: {{text_pair: " in caplog.text) == bool(unused)
    assert bool(caplog.text) == bool(unused)
    caplog.clear()
    init(tmp_path / "a.csv", {"columns": {"text": names[0]}})
    assert caplog.text == ""


def test_a_table_without_a_header_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = [{"ana bela coro": row["review"], "1": row["stars"]} for row in rows(60)]
    init(write_csv(tmp_path / "a.csv", made))
    assert "the column '1' has a value of that name; a table without a header loses its first row" in caplog.text


def test_a_folder_has_its_name_wherever_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my data" / "inside").mkdir(parents=True)
    write_csv(tmp_path / "my data" / "reviews.csv", rows(60))
    for within, path in (("my data", "."), ("my data/inside", ".."), (".", "my data")):
        monkeypatch.chdir(tmp_path / within)
        assert init(path).name == "my data"


def test_what_is_not_to_be_told_is_said_in_python_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="which columns are text and label"):
        mt.train(write_csv(tmp_path / "a.csv", [{"x": str(n), "y": str(n)} for n in range(9)]))
