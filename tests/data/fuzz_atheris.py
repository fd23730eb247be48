"""Fuzzing guided by coverage: ``python tests/data/fuzz_atheris.py TARGET FOLDER RUNS [FLAG ...]``.

TARGET is a reader of test_fuzz.py or ``recipe``; what is found is left in FOLDER. FLAGs are libFuzzer's. The first byte
of an input chooses among the file names that the reader's seeds have; the rest is the file.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["multitune.data", "multitune.recipe", "multitune.recipe_files", "yaml", "zipfile", "gzip"]
):
    import test_fuzz


def main(target: str, folder: Path, runs: str, flags: list[str]) -> None:
    seeds = test_fuzz.SEEDS.get(target, [("recipe.yaml", test_fuzz.RECIPE)])
    names = sorted({name for name, _ in seeds})
    test_fuzz.SECONDS *= 5  # instrumented code is slower
    test_fuzz.partners(folder)
    (folder / "corpus").mkdir(exist_ok=True)
    for row, (name, content) in enumerate(seeds):
        (folder / "corpus" / f"seed{row}").write_bytes(bytes([names.index(name)]) + content)

    def once(data: bytes) -> None:
        path = folder / names[data[0] % len(names) if data else 0]
        path.write_bytes(data[1:])
        if target in test_fuzz.READERS:
            test_fuzz.check_reader(test_fuzz.READERS[target], path)
        else:
            test_fuzz.check_recipe(path)

    given = [f"-runs={runs}", f"-artifact_prefix={folder}/", "-max_len=5000", "-timeout=30", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *given, *flags, str(folder / "corpus")], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
