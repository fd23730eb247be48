"""Bytes, memory and time of a large run, by method: docs/scale.md, computed from formulas; nothing of it was run.

    python bench/scale.py > docs/scale.md
    python bench/scale.py --check

The check compares that page with what is computed now, and the formulas' bytes with those that two ranks send, counted
by the kernel in a network of their own (Linux, with the right to make one): they may differ by 5 %.
"""

import argparse
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
TOLERANCE = 0.05


@dataclass(frozen=True)
class Model:
    """A decoder with gated MLPs and grouped keys and values."""

    layers: int = 32
    hidden: int = 4096
    intermediate: int = 14336
    key_values: int = 1024
    vocabulary: int = 128256

    @property
    def matrices(self) -> list[tuple[int, int]]:
        """Inputs and outputs of a layer's: queries, keys, values, output, gate, up, down."""
        h, i, kv = self.hidden, self.intermediate, self.key_values
        return [(h, h), (h, kv), (h, kv), (h, h), (h, i), (h, i), (i, h)]

    @property
    def parameters(self) -> int:
        layer = sum(a * b for a, b in self.matrices) + 2 * self.hidden
        return self.layers * layer + self.hidden + 2 * self.vocabulary * self.hidden

    def adapters(self, rank: int) -> int:
        """The parameters of LoRA beside all of a layer's matrices."""
        return self.layers * sum(rank * (a + b) for a, b in self.matrices)


@dataclass(frozen=True)
class Machine:
    """What a run is given; flops and bytes a second of one GPU."""

    ranks: int = 64
    memory: float = 80e9
    flops: float = 0.4 * 989e12
    network: float = 50e9


MODEL, MACHINE = Model(), Machine()
LANGUAGES, ADAPTER_RANK, TOKENS, BUDGET, INNER_STEPS = 100, 16, 16 * 512, 100_000, 10
FP32, BF16 = 4, 2


def rounds(tasks: int, ranks: int) -> int:
    """The tasks of the rank that has most."""
    return -(-tasks // ranks)


def sent_streaming(parameters: float, ranks: int) -> float:
    """Numbers that a rank sends a step: one all-reduce."""
    return 2 * parameters * (ranks - 1) / ranks


def sent_gram(parameters: float, ranks: int, rows: float) -> float:
    """Numbers that a rank sends a step: each of its rows to those who combine its columns, and the combined columns."""
    return (rows + 1) * parameters * (ranks - 1) / ranks


def rows_held(tasks: int, ranks: int) -> int:
    """Gradient vectors in a rank's memory: its columns of all, the combined one, and those that are made or travel."""
    return rounds(tasks, ranks) + 1 + min(2, rounds(tasks, ranks))


@dataclass(frozen=True)
class Cost:
    """One way of training.

    Attributes:
        name: of the method.
        tasks: gradients that a step (a round, of two loops) computes.
        sent: bytes that a rank sends in it.
        held: bytes in a rank's memory.
        turns: gradient computations that a rank makes one after the other in it.
        share: of a gradient's batch that is a rank's.
    """

    name: str
    tasks: int
    sent: float
    held: float
    turns: float
    share: float
    flops: float

    @property
    def computing(self) -> float:
        """Seconds of a step."""
        return self.turns * self.share * self.flops / MACHINE.flops

    @property
    def sending(self) -> float:
        """Seconds of a step, where nothing is computed meanwhile."""
        return self.sent / MACHINE.network

    @property
    def hours(self) -> float:
        """Of the whole budget."""
        return BUDGET / self.tasks * (self.computing + self.sending) / 3600

    def row(self) -> str:
        fits = "" if self.held <= MACHINE.memory else " (does not fit)"
        return (
            f"| {self.name} | {self.tasks} | {_bytes(self.sent)} | {_bytes(self.sent / self.tasks)} | "
            f"{self.held / 1e9:.1f} GB{fits} | {self.computing:.2f} s | {self.sending:.3f} s | {self.hours:.1f} h |"
        )


def _bytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def activations(share: float) -> float:
    """Bytes of the layers' inputs, which gradient checkpointing keeps, and of one layer's logits and insides."""
    tokens = TOKENS * share
    return tokens * (MODEL.layers * MODEL.hidden + 4 * MODEL.intermediate) * BF16 + tokens * MODEL.vocabulary * FP32


def with_adapters() -> Iterator[Cost]:
    """LoRA: every rank has the model in bf16, and adapters with AdamW in fp32."""
    size, base, ranks = MODEL.adapters(ADAPTER_RANK), MODEL.parameters, MACHINE.ranks
    fixed = base * BF16 + activations(1)
    flops = 6.0 * base * TOKENS  # forward, forward again, backward without the gradients of frozen weights

    def cost(name: str, tasks: int, numbers: float, vectors: int, turns: int) -> Cost:
        return Cost(name, tasks, numbers * FP32, fixed + vectors * size * FP32, turns, 1, flops)

    yield cost(f"joint training, {ranks} tasks", ranks, sent_streaming(size, ranks), 4, 1)
    for tasks in (ranks, LANGUAGES, 2 * ranks):
        turns = rounds(tasks, ranks)
        name = f"PCGrad, GradVac, UPGrad ..., {tasks} tasks"
        yield cost(name, tasks, sent_gram(size, ranks, turns), 3 + rows_held(tasks, ranks), turns)
    walks = f"Sequential Reptile, {ranks} trajectories of {INNER_STEPS} steps"
    yield cost(walks, ranks * INNER_STEPS, sent_streaming(size, ranks), 6, INNER_STEPS)


def in_full() -> Iterator[Cost]:
    """All parameters, sharded: every rank has 1 / R of weights, moments and rows, and of each task's batch."""
    size, ranks = MODEL.parameters, MACHINE.ranks
    gathered = (size - 2 * MODEL.vocabulary * MODEL.hidden) / MODEL.layers + MODEL.vocabulary * MODEL.hidden
    fixed = 2 * gathered * (BF16 + FP32) + activations(1 / ranks)
    a_gradient = size * (ranks - 1) / ranks * (2 * BF16 + FP32)  # gathered twice in bf16, reduced in fp32
    flops = 8.0 * size * TOKENS

    def cost(name: str, tasks: int, vectors: int) -> Cost:
        held = fixed + vectors * size * FP32 / ranks
        return Cost(name, tasks, tasks * a_gradient, held, tasks, 1 / ranks, flops)

    yield cost(f"joint training, {LANGUAGES} tasks", LANGUAGES, 5)
    for tasks in (8, LANGUAGES):
        yield cost(f"PCGrad, GradVac, UPGrad ..., {tasks} tasks", tasks, 4 + tasks)
    yield cost(f"Sequential Reptile, rounds of {INNER_STEPS} steps", INNER_STEPS, 5)


HEAD = (
    "| Method | Gradients per step | Sent per rank and step | per gradient | Memory per rank | Computing per step | "
    "Sending per step | The run |\n|---|---|---|---|---|---|---|---|"
)


def page() -> str:
    """docs/scale.md."""
    size, base, ranks = MODEL.adapters(ADAPTER_RANK), MODEL.parameters, MACHINE.ranks
    lora, full = ("\n".join([HEAD, *(cost.row() for cost in costs)]) for costs in (with_adapters(), in_full()))
    return f"""# What would {LANGUAGES} languages and 8 B parameters cost on {ranks} GPUs?

This page helps to plan a large run: it compares the methods' traffic, memory and time. Nobody has made such a run;
`python bench/scale.py` computes the page from [formulas](#formulas). `--check` compares the first two formulas with the
bytes that two ranks send (gloo, one machine): the difference is below {TOLERANCE:.0%}.

| Assumed | |
|---|---|
| model | {base / 1e9:.2f} B parameters: {MODEL.layers} layers of {MODEL.hidden}, MLPs of {MODEL.intermediate}, {MODEL.vocabulary:,} tokens; gradient checkpointing |
| LoRA | rank {ADAPTER_RANK} beside every matrix of a layer: {size / 1e6:.1f} M parameters that train, in fp32 |
| a gradient | {TOKENS:,} tokens of one language (16 x 512) |
| the run | {BUDGET:,} gradients, 1,000 per language |
| a GPU | {MACHINE.memory / 1e9:.0f} GB, {MACHINE.flops / 1e12:.0f} TFLOP/s in bf16 (40 % of 989), {MACHINE.network / 1e9:.0f} GB/s to the others |

Bytes and times are those of the rank that has most to do. A step's time is computing plus sending; where the two overlap,
it takes less. Evaluation, loading and waiting for a slow rank are not included.

## With LoRA, one task's batch per rank

{lora}

The adapters are small: sending takes {next(with_adapters()).sending / next(with_adapters()).computing:.1%} of a step, and where each rank has one task, methods of the Gram matrix
cost as much as joint training. A step of {LANGUAGES} tasks wastes time: {2 * ranks - LANGUAGES} ranks have no second task. Several trajectories
send least; [how well they train](distributed.md#what-was-measured-and-what-was-not) is another question.

## In full, sharded over the ranks

AdamW in fp32 takes 16 bytes per parameter, {16 * base / 1e9:.0f} GB: no rank can hold all of it. So all ranks work on one task's batch at
a time, each on a part of it, and each holds 1/{ranks} of weights, moments and rows.

{full}

This is [`shard: true`](distributed.md#models-that-do-not-fit). Sending takes longer than computing, for every method alike:
{16 * 512 // ranks} tokens per rank and gradient are too few. Larger batches would help, or groups of ranks that each shard one model. The
method's own traffic is a matrix of tasks x tasks numbers per step. The rows of {LANGUAGES} tasks fit, because each rank holds only
its slice. At the start, and for a checkpoint, the whole model must also fit into CPU memory.

## Formulas

R ranks, n tasks per step, P parameters that train, K inner steps, c = ceil(n / R). Numbers have 4 bytes, unless said
otherwise.

| | Numbers sent per rank and step | Vectors of P numbers in a rank's memory |
|---|---|---|
| joint training, GradNorm, FAMO | 2 P (R - 1) / R | 4: weights, gradient, two moments; GradNorm and FAMO one gradient more |
| methods of the Gram matrix | (c + 1) P (R - 1) / R | 3 + c + 1 + min(2, c): weights, moments, rows |
| two loops, M = R trajectories | 2 P (R - 1) / R in a round of R K gradients | 6: weights, gradient, moments, slow weights and their mean |
| sharded, any method | n P (R - 1) / R, and twice that in bf16 | 1/R of 4 (joint: 5), of 4 + n with rows, of 5 with two loops |

Flops per gradient: 6 per parameter and token with LoRA (forward, forward again, backward to the inputs), 8 in full.
Beside these vectors a rank holds activations, in bytes per token 2 for each number of the layers' inputs and of four MLPs'
insides and 4 for each logit; with LoRA also the model in bf16, and sharded two layers with the embeddings in bf16 and fp32.
"""  # noqa: E501 - rows of tables


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.rank is not None:
        _measure(given.rank)
    elif given.check:
        return _check()
    else:
        print(page(), end="")
    return 0


RANKS, STEPS = 2, 4
SIZES = (512, 1024)
"""Of the matrices of the measured network."""


def _check() -> int:
    """Compare page and bytes; 1 where something differs."""
    wrong = 0
    if PAGE.read_text(encoding="utf-8") != page():
        print(f"{PAGE} is not what is computed: python bench/scale.py > docs/scale.md")
        wrong = 1
    command = ["unshare", "--net", sys.executable, __file__, "--rank", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"nothing was measured: {done.stderr.strip().splitlines()[-1]}")
        return 1
    parameters = SIZES[0] * SIZES[1] * 2
    expected = {
        "joint 2": sent_streaming(parameters, RANKS),
        "pcgrad 2": sent_gram(parameters, RANKS, 2 / RANKS),
        "pcgrad 4": sent_gram(parameters, RANKS, 4 / RANKS),
        "pcgrad 3": sent_gram(parameters, RANKS, 3 / RANKS),
    }
    for name, measured in json.loads(done.stdout).items():
        formula = expected[name] * FP32
        print(f"{name} tasks on {RANKS} ranks: {measured / 1e6:.3f} MB, {formula / 1e6:.3f} MB by the formula")
        wrong |= abs(measured / formula - 1) > TOLERANCE
    return int(wrong)


def _measure(rank: int) -> None:
    """What one of two ranks does; rank 0 begins the other, and prints the bytes a rank and step."""
    import torch
    from torch import distributed, nn

    from multitune.methods.base import CombiningMethod
    from multitune.methods.combiner import Combiner
    from multitune.methods.joint import Joint
    from multitune.methods.pcgrad import PCGrad

    other = None
    if rank == 0:
        _raise_loopback()
        other = subprocess.Popen([sys.executable, __file__, "--rank", "1"])
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group("gloo", init_method="tcp://127.0.0.1:29500", rank=rank, world_size=RANKS)
    cases: list[tuple[str, Callable[[], CombiningMethod], int]] = [
        ("joint 2", Joint, 2),
        *((f"pcgrad {tasks}", partial(PCGrad, seed=0), tasks) for tasks in (2, 4, 3)),
    ]
    found = {}
    for name, method, tasks in cases:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(*SIZES, bias=False), nn.Linear(*SIZES[::-1], bias=False))
        combiner = Combiner(net.named_parameters(), method(), process_group=distributed.group.WORLD)
        batches = [torch.randn(4, SIZES[0]) for _ in range(tasks)]
        losses = [partial(lambda net, batch: net(batch).square().mean(), net, batch) for batch in batches]
        combiner.backward(losses)
        distributed.barrier()
        before = _sent()
        for _ in range(STEPS):
            combiner.backward(losses)
        distributed.barrier()
        found[name] = (_sent() - before) / STEPS / RANKS
    distributed.destroy_process_group()
    if other is not None:
        other.wait()
        print(json.dumps(found))


def _raise_loopback() -> None:
    """Switch the loopback device of this network on: SIOCSIFFLAGS with IFF_UP | IFF_RUNNING."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"lo", 0x41))


def _sent() -> int:
    """Bytes that the loopback device has sent."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    (own,) = (line.split(":")[1].split() for line in lines if line.strip().startswith("lo:"))
    return int(own[8])


if __name__ == "__main__":
    sys.exit(main())
