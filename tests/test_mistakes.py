"""Names that users bring along from other tools: each leads to a key that there is."""

import pytest

from multitune import recipe_files as recipes
from multitune.errors import UserError
from multitune.mistakes import ADVICE, NAMES_ELSEWHERE, key_of
from multitune.plans import METHODS
from multitune.recipe import Lora, Recipe
from multitune.training.loading import load_plan

OPTIONS = {f"options.{option}" for plan in METHODS.values() for option in plan.model_fields}
OF_LORA = {f"lora.{key}" for key in Lora.model_fields}


def test_the_tables_lead_to_keys_that_there_are() -> None:
    others = [name for names in NAMES_ELSEWHERE.values() for name in names]
    assert NAMES_ELSEWHERE.keys() <= {*Recipe.model_fields, *OPTIONS, *OF_LORA}
    assert len({*others, *ADVICE}) == len(others) + len(ADVICE), "one meaning each"
    assert not Recipe.model_fields.keys() & {*others, *ADVICE}, "no key is taken for another"


MEANT = {
    "lr": "learning_rate",
    "learning-rate": "learning_rate",
    "Learning_Rate": "learning_rate",
    "batch": "batch_size",
    "bs": "batch_size",
    "per_device_train_batch_size": "batch_size",
    "max_len": "max_length",
    "max_seq_length": "max_length",
    "model_name_or_path": "model",
    "dataset": "data",
    "langs": "languages",
    "methods": "method",
    "wd": "weight_decay",
    "max_grad_norm": "clip",
    "inner_steps": "options.inner_steps",
    "outer_lr": "options.outer_lr",
    "bugdet": "budget",
    "peft": "lora",
    "target_modules": "lora.targets",
    "activation_checkpointing": "gradient_checkpointing",
}


@pytest.mark.parametrize(("name", "key"), MEANT.items())
def test_a_name_from_elsewhere_is_understood(name: str, key: str) -> None:
    with pytest.raises(UserError) as error:
        recipes.validated({"data": "panx", name: 1}, "recipe")
    assert str(error.value) == f"recipe: unknown key {name!r} (did you mean {key!r}?)"
    assert key_of(name, Recipe.model_fields) == key


ADVISED = {
    "epochs": "budget",
    "num_train_epochs": "budget",
    "max-steps": "budget",
    "gpus": "device: cuda:N names a card",
    "output_dir": "--out FOLDER",
    "resume": "--resume",
    "seeds": "multitune compare: --seeds N",
    "warmup_steps": "a share of the budget",
    "gradient_accumulation_steps": "micro_batch_size says",
    "temperature": "sampling_exponent is 1 / temperature",
}


@pytest.mark.parametrize(("name", "said"), ADVISED.items())
def test_what_is_decided_elsewhere_is_said(name: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        Recipe(data="panx", **{name: 1})  # type: ignore[arg-type]
    assert str(error.value).startswith(f"unknown key {name!r}: ")
    assert said in str(error.value)


def test_a_name_like_an_option_is_no_key() -> None:
    assert key_of("by_langage", Recipe.model_fields, ["by_language"]) is None
    assert key_of("langages", Recipe.model_fields, ["by_language"]) == "languages"
    assert key_of("frobnicate", Recipe.model_fields) is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"budget": 3}, "options of mtl: budget is a key of the recipe itself; write it beside options"),
        ({"tasks_per_stp": 3}, "options of mtl: unknown key 'tasks_per_stp' (did you mean 'tasks_per_step'?)"),
        ({"lr": 3}, "options of mtl: unknown key 'lr'; allowed: tasks_per_step"),
        ({"inner_steps": 3}, "options of mtl: unknown key 'inner_steps'; allowed: tasks_per_step"),
        ({"walks": 3}, "options of mtl: unknown key 'walks'; allowed: tasks_per_step"),
        (
            {"tasks_per_batch": 3.5},
            "options of mtl: unknown key 'tasks_per_batch' (did you mean 'options.tasks_per_step'",
        ),
        ({"tasks_per_step": "inf"}, "options of mtl: tasks_per_step: must be a whole number, not 'inf'"),
    ],
)
def test_options_that_a_method_does_not_take(options: dict[str, int | str], said: str) -> None:
    with pytest.raises(UserError) as error:
        load_plan(Recipe(data="panx", method="mtl", options=options))  # type: ignore[arg-type]
    assert str(error.value).startswith(said)


@pytest.mark.parametrize("method", METHODS)
def test_no_method_takes_a_number_without_end(method: str) -> None:
    for name, field in METHODS[method].model_fields.items():
        if "float" in str(field.annotation):
            for value in ("inf", "-inf", "nan"):
                with pytest.raises(UserError, match=f"options of {method}: {name}: must be a finite number"):
                    load_plan(Recipe(data="panx", method=method, options={name: value}))
