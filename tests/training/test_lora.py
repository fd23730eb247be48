"""Runs with low-rank adapters: what trains, what is copied and kept, what ships, where it resumes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModel, PeftModel
from safetensors import safe_open
from transformers import AutoModelForTokenClassification

import multitune as mt
from builders import numbers, prepared, quick, recipe, stop_after
from multitune.commands.evaluate import evaluate
from multitune.errors import Interrupted, UserError
from multitune.models import encoder as encoders
from multitune.recipe import Lora, Recipe
from multitune.tasks import TASKS, HeadMap
from multitune.training.run import Run

LORA: dict[str, Any] = {"rank": 2, "alpha": 4, "targets": ["query", "value"], "dropout": 0.1}
ADAPTERS, HEAD = 2 * 2 * 2 * (16 + 16), 5 * 16 + 5
"""Numbers of the adapters of two matrices in each of two layers, and of the head for five tags."""
METHODS = ("mtl", "gradvac", "sequential_reptile", "reptile", "lookahead", "recadam", "swep")


def step(run: Run, times: int = 1) -> None:
    for _ in range(times):
        run.update.advance(run.recipe.learning_rate, 0.0)
        drawn = run.update.draw(9)
        run.update.step(drawn, (run.next_loss(number, []) for number in drawn))


def test_adapters_and_head_train_and_nothing_else_moves(tiny_model: Path, tiny_panx: Path) -> None:
    run = prepared(recipe(tiny_model, tiny_panx, lora=LORA))
    before = {name: weight.detach().clone() for name, weight in run.encoder.model.named_parameters()}
    step(run, times=5)
    moved = {k for k, weight in run.encoder.model.named_parameters() if not torch.equal(weight, before[k])}
    assert moved == {name for name, _ in run.encoder.parameters()}
    assert sum(weight.numel() for _, weight in run.encoder.parameters()) == ADAPTERS + HEAD
    assert all("lora_" in name or name.startswith("classifier.") for name in moved)


STATE = {
    "mtl": 2 * (ADAPTERS + HEAD),  # AdamW's moments
    "sequential_reptile": 3 * (ADAPTERS + HEAD),  # and the slow weights
    "reptile": 4 * (ADAPTERS + HEAD),  # and the mean of the trajectories
    "recadam": 2 * (ADAPTERS + HEAD) + ADAPTERS,  # and where the adapters began
}


@pytest.mark.parametrize(("method", "size"), STATE.items())
def test_the_state_of_a_method_is_of_adapters_and_head_alone(
    tiny_model: Path, tiny_panx: Path, method: str, size: int
) -> None:
    run = prepared(recipe(tiny_model, tiny_panx, method, lora=LORA, options={}))
    step(run, times=3)
    assert numbers(run.update.state_dict()) == size


def test_the_rows_of_a_method_are_of_adapters_and_head_alone(tiny_model: Path, tiny_panx: Path) -> None:
    run = prepared(recipe(tiny_model, tiny_panx, "gradvac", lora=LORA))
    assert sum(run.update.combiner.layout.sizes) == ADAPTERS + HEAD  # type: ignore[attr-defined]


def test_a_checkpoint_holds_adapters_and_head_alone(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    one = recipe(tiny_model, tiny_panx, "sequential_reptile", lora=LORA, budget=12, keep_checkpoints=True)
    mt.train(one.model_copy(update={"average": "ema"}), tmp_path / "run")
    (path,) = (tmp_path / "run" / "checkpoints").glob("*12/tensors.safetensors")
    with safe_open(path, framework="pt") as file:
        sizes = [tensor.numel() for k in sorted(file.keys()) if (tensor := file.get_tensor(k)).is_floating_point()]
    assert sum(size for size in sizes if size > 1) == 5 * (ADAPTERS + HEAD), "weights, two moments, phi, average"


def test_drift_is_that_of_the_merged_weights(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    """Explicitly: |W' - W| over all weights that pretraining left, from the files that ship."""
    result = mt.train(recipe(tiny_model, tiny_panx, "sequential_reptile", lora=LORA), tmp_path / "run")
    with safe_open(tiny_model / "model.safetensors", framework="pt") as before:
        names = sorted(before.keys())
        old = {name: before.get_tensor(name).double() for name in names}
    with safe_open(tmp_path / "run/model/model.safetensors", framework="pt") as after:
        squares = [(after.get_tensor(f"bert.{name}").double() - old[name]).square().sum() for name in names]
    assert result.drift is not None
    assert result.drift > 0.01
    assert result.drift == pytest.approx(float(torch.stack(squares).sum().sqrt()), rel=1e-6)


# peft reads a name that transformers has renamed.
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*is deprecated:FutureWarning")
@pytest.mark.parametrize("method", ["mtl", "sequential_reptile"])
def test_what_ships_is_the_trained_model(tmp_path: Path, tiny_model: Path, tiny_panx: Path, method: str) -> None:
    one = recipe(tiny_model, tiny_panx, method, lora=LORA)
    result = mt.train(one, tmp_path / "run")
    scores = result.seen | result.unseen
    assert evaluate(tmp_path / "run") == {code: pytest.approx(score) for code, score in scores.items()}
    found = list(mt.predict(tmp_path / "run", ["ana bela sees roma"]))
    assert len(found[0]["prediction"]) == 4
    run, ids = prepared(one), torch.tensor([[2, 5, 6, 7, 3]])
    step(run, times=5)  # another one, not merged
    run.encoder.save(tmp_path / "model")
    run.encoder.save_adapters(tmp_path / "adapter", str(tiny_model))
    run.encoder.model.eval()
    trained = run.encoder.model(input_ids=ids).logits
    merged = AutoModelForTokenClassification.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(merged(input_ids=ids).logits, trained, atol=1e-4, rtol=0)
    base = AutoModelForTokenClassification.from_pretrained(tiny_model, num_labels=5)
    adapted = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    torch.testing.assert_close(adapted(input_ids=ids).logits, trained, atol=1e-4, rtol=0)
    found_by_itself = AutoPeftModel.from_pretrained(tmp_path / "adapter", num_labels=5).eval()
    torch.testing.assert_close(found_by_itself(input_ids=ids).logits, trained, atol=1e-4, rtol=0)


def test_the_weights_are_back_to_the_bit_after_an_evaluation(tiny_model: Path, tiny_panx: Path) -> None:
    run = prepared(recipe(tiny_model, tiny_panx, lora=LORA))
    step(run, times=5)
    before = {name: weight.detach().clone() for name, weight in run.encoder.model.named_parameters()}
    with run.encoder.evaluating():
        assert not any("lora_" in name for name, _ in run.encoder.model.named_parameters())
        assert not torch.equal(
            run.encoder.model.get_parameter("bert.encoder.layer.0.attention.self.query.weight"),
            before["bert.encoder.layer.0.attention.self.query.base_layer.weight"],
        )
    after = dict(run.encoder.model.named_parameters())
    assert list(after) == list(before)
    assert all(torch.equal(weight, before[name]) for name, weight in after.items())


def test_weights_held_in_bf16_give_the_same_bits_and_are_whole_where_adapters_are_merged(tiny_model: Path) -> None:
    heads, ids = HeadMap.of_all(TASKS["tagging"](["O", "B-PER"])), torch.tensor([[2, 5, 7, 3], [2, 6, 8, 3]])
    found: dict[bool, list[torch.Tensor]] = {}
    for rounded in (True, False):
        encoder = encoders.load(str(tiny_model), heads, layers=None, dropout=0.0, seed=0)
        encoder.adapt(Lora(rank=2, dropout=0), seed=0, rounded=rounded)
        weights = [weight for name, weight in encoder.model.named_parameters() if ".base_layer.weight" in name]
        assert {weight.dtype for weight in weights} == {torch.bfloat16 if rounded else torch.float32}
        with torch.no_grad():
            for name, weight in encoder.parameters():
                weight.add_(0.01 * ("lora_B" in name))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            encoder.numbered(0)(input_ids=ids).logits.float().square().sum().backward()
        gradients = [weight.grad for _, weight in encoder.parameters() if weight.grad is not None]
        with encoder.evaluating():
            merged = [weight.detach().clone() for weight in encoder.model.parameters()]
        found[rounded] = [*gradients, *merged]
        assert weights[0].dtype == (torch.bfloat16 if rounded else torch.float32)
    assert all(torch.equal(one, other) for one, other in zip(*found.values(), strict=True))


@pytest.mark.parametrize("method", quick(METHODS, "gradvac", "sequential_reptile"))
def test_a_run_resumes_to_the_same_bits(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    keys: dict[str, Any] = {"probe_every": 12, "select": "last", "average": "ema"}
    one = recipe(tiny_model, tiny_panx, method, budget=24, validate_every=8, dropout=0.1, lora=LORA, **keys)
    whole = mt.train(one, tmp_path / "whole")
    stop_after(11, monkeypatch)
    with pytest.raises(Interrupted):
        mt.train(one, tmp_path / "parts")
    assert (tmp_path / "parts" / "adapter" / "adapter_config.json").exists()
    resumed = mt.train(one, tmp_path / "parts", resume=True)
    assert (resumed.seen, resumed.unseen, resumed.drift) == (whole.seen, whole.unseen, whole.drift)
    for file in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes()


def test_a_model_for_each_language_has_an_adapter_for_each(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    mt.train(recipe(tiny_model, tiny_panx, "stl", lora=LORA, budget=8), tmp_path / "run")
    for kind, file in (("model", "model.safetensors"), ("adapter", "adapter_model.safetensors")):
        assert {path.parent.name for path in (tmp_path / "run" / kind).glob(f"*/{file}")} == {"aa", "bb"}


def test_frozen_parts_get_no_adapters(tiny_model: Path, tiny_panx: Path) -> None:
    run = prepared(recipe(tiny_model, tiny_panx, lora=LORA | {"targets": "all-linear"}, freeze=["layers 0"]))
    adapted = set(run.encoder.adapted.values())
    assert adapted
    assert all("layer.1." in name for name in adapted)


def test_adapters_have_their_layers_share_of_the_rate(tiny_model: Path, tiny_panx: Path) -> None:
    """AdamW's first step moves B, which is zero, by the rate."""
    run = prepared(recipe(tiny_model, tiny_panx, "sequential", lora=LORA, layer_decay=0.5, clip=None))
    step(run)
    for layer, share in ((0, 0.25), (1, 0.5)):
        b = run.encoder.model.get_parameter(f"bert.encoder.layer.{layer}.attention.self.value.lora_B.default.weight")
        assert float(b.detach().abs().max()) == pytest.approx(share * run.recipe.learning_rate, rel=1e-3)


def test_an_anchor_pulls_adapters_back_to_nothing(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    keys: dict[str, Any] = {"lora": LORA, "budget": 16}
    drifts = [
        mt.train(recipe(tiny_model, tiny_panx, "sequential_reptile", anchor=alpha, **keys), tmp_path / str(alpha)).drift
        for alpha in (0.0, 50.0)
    ]
    assert drifts[0] is not None
    assert drifts[1] is not None
    assert drifts[1] < 0.8 * drifts[0]


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no such layer": (
        {"lora": {"targets": ["query", "q_proj"]}},
        "lora.targets: 'q_proj' is no linear layer of this model; it has dense, key, query, value$",
    ),
    "half a name": ({"lora": {"targets": ["uery"]}}, "lora.targets: 'uery' is no linear layer"),
    "all frozen": (
        {"lora": {}, "freeze": ["encoder"]},
        "lora: this model has no pretrained linear layer that may train",
    ),
    "nothing pretrained": (
        {"lora": {}, "model": "scratch:transformer"},
        "lora: scratch:transformer has no pretrained weights to adapt",
    ),
}


@pytest.mark.parametrize(("keys", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(tiny_model: Path, tiny_panx: Path, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        prepared(recipe(tiny_model, tiny_panx, **keys))
    assert "\n" not in str(raised.value)


VALUES: dict[str, tuple[Any, str]] = {
    "rank": ({"rank": 0}, "lora.rank: must be at least 1, not 0"),
    "targets": ({"targets": "query"}, "lora.targets: must be 'all-linear' or a list such as [query], not 'query'"),
    "no targets": ({"targets": []}, "lora.targets: must be 'all-linear' or a list of at least 1, not []"),
    "a key of peft's": ({"lora_alpha": 3}, "lora: unknown key 'lora_alpha' (did you mean 'lora.alpha'?)"),
    "a number": (16, "lora: must be a mapping of keys (rank, alpha, targets, dropout) to values, not 16"),
}


@pytest.mark.parametrize(("value", "said"), VALUES.values(), ids=VALUES)
def test_values_that_are_not_allowed(value: Any, said: str) -> None:
    with pytest.raises(UserError) as raised:
        Recipe(data="panx", lora=value)
    assert str(raised.value).startswith(said)


def test_runs_are_compared_merged_and_probed(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    one = recipe(tiny_model, tiny_panx, "sequential", lora=LORA, budget=24, options={})
    mt.compare(one, tmp_path / "all", methods=["mtl", "sequential_reptile"])
    runs = [tmp_path / "all" / name for name in ("mtl-seed0", "sequential_reptile-seed0")]
    merged = mt.merge(runs, tmp_path / "merged", toward_pretrained=True, weights=[1.0, 0.0])
    drifts = {point.weight: point.drift for point in merged.points}
    assert drifts[0.0] == 0.0
    assert drifts[1.0] is not None
    assert drifts[1.0] > 0.0
    findings = mt.probe(runs[0])
    assert findings.drift.total == pytest.approx(mt.RunResult.read(runs[0]).drift, rel=1e-4)


# peft reads a name that transformers has renamed.
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*is deprecated:FutureWarning")
def test_adapters_under_several_heads_ship_with_that_of_the_languages(
    tmp_path: Path, tiny_lm: Path, tiny_panx: Path
) -> None:
    one = recipe(tiny_lm, tiny_panx, "gradvac", lora=LORA, replay={"share": 0.4}, learning_rate=1e-3)
    mt.train(one, tmp_path / "run")
    base = AutoModelForTokenClassification.from_pretrained(tiny_lm, num_labels=5)
    adapted = PeftModel.from_pretrained(base, tmp_path / "run" / "adapter").eval()
    merged = AutoModelForTokenClassification.from_pretrained(tmp_path / "run" / "model")
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    torch.testing.assert_close(merged(input_ids=ids).logits, adapted(input_ids=ids).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_an_outer_step_lacks_the_second_order_term_of_the_product(eta: float) -> None:
    """B' A' = B0 A0 + eta (B_K A_K - B0 A0) - eta (1 - eta) (B_K - B0)(A_K - A0)."""
    draw = torch.Generator().manual_seed(0)
    starts = [torch.randn(3, 2, generator=draw), torch.randn(2, 4, generator=draw)]
    ways = [torch.randn(part.shape, generator=draw) for part in starts]
    factors = [torch.nn.Parameter(start.clone()) for start in starts]
    outer = mt.SequentialReptile(torch.optim.SGD(factors, lr=1.0), inner_steps=1, outer_lr=eta)
    for factor, way in zip(factors, ways, strict=True):
        factor.grad = -way
    outer.step()
    before, after = starts[0] @ starts[1], (starts[0] + ways[0]) @ (starts[1] + ways[1])
    expected = before + eta * (after - before) - eta * (1 - eta) * ways[0] @ ways[1]
    torch.testing.assert_close((factors[0] @ factors[1]).detach(), expected)
