"""What a two-loop optimizer keeps, in torch's own layout of an optimizer's state."""

from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from multitune.methods.optimizer_state import Entries, InGroups, copied, kept_in_groups
from multitune.methods.slow_weights import SlowWeights
from multitune.methods.walks import WEIGHTS, Walks

Weights = Literal["fast", "slow"]
Groups = list[dict[str, Any]]


class OuterOptimizer(Protocol):
    """Makes the outer optimizer: ``torch.optim.SGD``, or ``functools.partial(SGD, momentum=0.9, nesterov=True)``."""

    def __call__(self, params: list[Tensor], /, *, lr: float) -> Optimizer:
        """An optimizer over ``params``, the slow weights."""


class TwoLoopState(Optimizer, ABC):
    """An inner optimizer, the slow weights, and an optimizer of these.

    ``state[p]`` has the inner optimizer's entries of a parameter and our own: ``"slow"``, the weights that it does not
    hold (phi, or theta while it holds phi), ``"unrounded"`` (phi, while a bf16 or fp16 parameter shows it), ``"outer"``
    (the outer optimizer's entries), ``"initial"`` (those that a reset puts back), ``"walks"`` (the entries and weights
    of other trajectories than that which the parameters hold). Numbers are in ``param_groups``. With
    this layout torch.distributed.checkpoint and accelerate can save and load it. The former (and accelerate under
    FSDP) loads what a new optimizer has after one step, so it loses ``"unrounded"``: phi is what the parameters hold.

    Args:
        optimizer: the inner optimizer, whose groups are shared.
        outer_optimizer: makes the outer optimizer; None: there is none.
        slow_device: where slow weights and the outer optimizer's state live; None: beside their parameters.
        keep_initial: remember the inner optimizer's entries of this moment.
        walks: the trajectories from phi.
    """

    progress: InGroups[float | None] = InGroups(None)
    """Share of the training that is done, 0 to 1: the caller sets it where a schedule reads it."""
    inner_step: InGroups[int] = InGroups(0)
    """Steps done since the current inner loop (of Reptile: trajectory) began."""
    outer_steps: InGroups[int] = InGroups(0)
    """Outer steps done."""
    way_left: InGroups[float] = InGroups(1.0)
    """prod(1 - eta_i) over the outer steps: how much of the first phi there is in the present one."""
    current_loop: InGroups[int] = InGroups(0)
    """K of the newest inner loop; 0 before the first step."""
    trajectory: InGroups[int] = InGroups(0)
    """Which of the trajectories that start at phi the parameters hold, and the next step continues."""
    walks_kept: InGroups[int] = InGroups(0)
    """Other trajectories of which a state has entries."""
    parameters_hold: InGroups[Weights] = InGroups("fast")
    """Which weights the parameters hold."""

    _our_entries: ClassVar[tuple[str, ...]] = ("slow", "unrounded", "outer", "initial", "walks")
    _attributes: ClassVar[tuple[str, ...]] = (
        *("inner", "_make_outer", "_slow_device", "_keep_initial"),
        *("_initial", "_before_first", "_phi", "_outer", "_walks"),
    )
    """What a copy of the optimizer has, besides torch's hooks."""

    def __init__(
        self,
        optimizer: Optimizer,
        outer_optimizer: OuterOptimizer | None,
        slow_device: torch.device | str | None,
        keep_initial: bool,
        walks: Walks,
    ) -> None:
        self.inner = optimizer
        super().__setstate__({})  # torch's hooks; groups and state are the inner optimizer's
        self._make_outer, self._slow_device, self._keep_initial = outer_optimizer, slow_device, keep_initial
        # Some optimizers (Adagrad, RecAdam) have state before their first step: clearing it would be no reset.
        self._initial: Entries = copied(optimizer.state) if keep_initial else {}
        self._before_first: Entries | None = None
        self._walks = walks
        self._start_anew()

    @property
    def param_groups(self) -> Groups:  # type: ignore[override]
        """The inner optimizer's groups."""
        return self.inner.param_groups

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """The inner optimizer's defaults."""
        return self.inner.defaults

    @property
    def state(self) -> Entries:  # type: ignore[override]
        """Each parameter's entries, as new dictionaries of the live tensors; empty before the first step.

        Where it is empty, torch.distributed.checkpoint makes it by a step before it saves or loads.
        """
        return self._all_entries() if self._phi.copies else {}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """The inner optimizer's ``zero_grad``."""
        self.inner.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the inner optimizer; its weights are copied at the next step.

        A reset puts its entries back to what they are now.
        """
        known = set(self._parameters())
        self.inner.add_param_group(param_group)
        self._count_in_all_groups()
        new = {p: own for p, own in self.inner.state.items() if p not in known}
        if self._keep_initial:
            self._initial |= copied(new)
        if self._before_first is not None:
            self._before_first |= copied(new)

    def state_dict(self) -> dict[str, Any]:
        """All that a resume needs besides the model's own weights, in the middle of an inner loop too.

        Its groups say which weights the model has (``"parameters_hold"``); it has the others. As with any optimizer of
        torch, the tensors are the live ones. Over ranks all call it together, and rank 0's has all trajectories.

        Raises:
            ValueError: over ranks, some of whose trajectories have had their turn and others have not.
        """
        if self._walks.ranks.size > 1 and self.trajectory != self._walks.own[0]:
            raise ValueError("over ranks, state_dict() comes when all trajectories have made as many steps")
        with self._walks.all_here(self._parameters(), self._at_work()):
            self.walks_kept = len(self._walks.waiting)
            packed = super().state_dict()
        if not self._phi.copies:
            packed["state"] = self.inner.state_dict()["state"]
        return packed

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was taken; load the model's own weights as well, before or after.

        Over ranks before: the model of a rank gets the weights of its own trajectory.

        The state of a plain optimizer of the inner one's class loads, too: then phi is copied at the next step.

        Raises:
            ValueError: the state belongs to other parameters or to another kind of outer optimizer, or is incomplete.
        """
        entries, groups = self._numbered(state_dict)
        self._check(entries, groups)
        self._load(entries, groups)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._attributes}

    def _check(self, entries: Entries, groups: Groups) -> None:
        """Find what does not fit before anything is loaded."""
        kept, found = groups[0].get("walks_kept", 0), _walks_in(entries)
        if len(found) != kept or (kept and max(kept, *found) >= self._walks.count):
            raise ValueError(f"this state has trajectories {found} beside one, and {self._walks.count} are walked")
        if self._walks.ranks.size > 1 and groups[0].get("trajectory", 0):
            raise ValueError("this state was taken while trajectories took turns: over ranks it cannot go on")
        for parameter, own in entries.items():
            if "slow" in own and own["slow"].shape != parameter.shape:
                raise _other_parameters()
            if "outer" in own and self._make_outer is None:
                raise ValueError("this state was saved with an outer_optimizer: give the same one")

    def _load(self, entries: Entries, groups: Groups) -> None:
        initial = _part(entries, "initial")
        if self._keep_initial and initial:
            self._initial = self._as_inner_entries(initial, groups)
        walks = {walk: self._loaded_walk(_walk(entries, walk), groups) for walk in _walks_in(entries)}
        theirs = {p: {k: v for k, v in own.items() if k not in self._our_entries} for p, own in entries.items()}
        self._as_inner_entries({p: own for p, own in theirs.items() if own}, groups)
        if not (copies := _part(entries, "slow")):
            self._start_anew()
            return
        self._count_in_all_groups()
        if self.current_loop:
            self._before_first = None
        self._drop_copies()
        self._add_copies(copies)
        self._phi.unrounded = {p: self._phi.copy_of(p, phi) for p, phi in _part(entries, "unrounded").items()}
        self._load_outer(_part(entries, "outer"))
        self._load_walks(walks)

    def _loaded_walk(self, entries: Entries, groups: Groups) -> Entries:
        """A waiting trajectory as the inner optimizer has entries, with its weights."""
        inner = {p: rest for p, own in entries.items() if (rest := {k: v for k, v in own.items() if k != WEIGHTS})}
        loaded = self._as_inner_entries(inner, groups)
        weights = {p: own[WEIGHTS].to(p.device, p.dtype, copy=True) for p, own in entries.items() if WEIGHTS in own}
        return {p: {**loaded.get(p, {}), **({WEIGHTS: weights[p]} if p in weights else {})} for p in entries}

    def _load_walks(self, walks: dict[int, Entries]) -> None:
        """Let this rank's trajectories wait, and bring its first one into the parameters."""
        self._walks.waiting = {walk: own for walk, own in walks.items() if walk in self._walks.own}
        if self.trajectory not in self._walks.own:
            self.trajectory = self._walks.own[0]
            own = self._walks.enter(self.trajectory)
            self._set_inner_state(copied(self._initial) if own is None else own)

    def _load_outer(self, entries: Mapping[Tensor, Any]) -> None:
        if self._outer is not None:
            numbered = {n: entries[p] for n, p in enumerate(self._phi.copies) if p in entries}
            self._outer.load_state_dict({"state": numbered, "param_groups": self._outer.state_dict()["param_groups"]})

    def _as_inner_entries(self, entries: Mapping[Tensor, Any], groups: Groups) -> Entries:
        """Load entries into the inner optimizer, which knows their types and devices; return them as it has them."""
        numbered = {n: entries[p] for n, p in enumerate(self._parameters()) if p in entries}
        self.inner.load_state_dict({"state": numbered, "param_groups": groups})
        return dict(self.inner.state)

    def _numbered(self, state_dict: Mapping[str, Any]) -> tuple[Entries, Groups]:
        """A state's entries by parameter, and its groups with the parameters numbered in order."""
        state, saved = state_dict["state"], state_dict["param_groups"]
        if [len(group["params"]) for group in saved] != [len(group["params"]) for group in self.param_groups]:
            raise _other_parameters()
        keys = [key for group in saved for key in group["params"]]
        numbers = iter(range(len(keys)))
        groups = [{**group, "params": [next(numbers) for _ in group["params"]]} for group in saved]
        return {p: state[key] for key, p in zip(keys, self._parameters(), strict=True) if key in state}, groups

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _all_entries(self) -> Entries:
        entries = {p: {**self.inner.state.get(p, {}), **self._own_entries(p)} for p in self._parameters()}
        return {p: own for p, own in entries.items() if own}

    def _own_entries(self, parameter: Tensor) -> dict[str, Any]:
        """What we keep of a parameter, under ``_our_entries``."""
        copy = self._phi.copies.get(parameter)
        kept = {
            "slow": copy,
            "unrounded": self._phi.unrounded.get(parameter),
            "outer": self._outer.state.get(copy) if self._outer and copy is not None else None,
            "initial": self._initial.get(parameter),
            "walks": {str(m): own[parameter] for m, own in self._walks.waiting.items() if own.get(parameter)} or None,
        }
        return {name: entry for name, entry in kept.items() if entry is not None}

    def _at_work(self) -> Entries:
        """The entries of the trajectory that the parameters hold, with its weights unless it stands at phi."""
        entries = {p: dict(own) for p, own in self.inner.state.items()}
        if self.inner_step:
            for p, copy in self._phi.copies.items():
                entries.setdefault(p, {})[WEIGHTS] = p.detach() if self.parameters_hold == "fast" else copy
        return entries

    def _count_in_all_groups(self) -> None:
        for counter in kept_in_groups(self):
            counter.__set__(self, counter.__get__(self))

    def _start_anew(self) -> None:
        """Be as before the first step; the inner optimizer stays as it is."""
        for counter in kept_in_groups(self):
            counter.__set__(self, counter.start)
        self.trajectory = self._walks.own[0]
        self._before_first = None
        self._drop_copies()

    def _drop_copies(self) -> None:
        self._phi, self._walks.waiting = SlowWeights(self._slow_device), {}
        self._outer: Optimizer | None = None

    def _add_copies(self, values: Mapping[Tensor, Tensor]) -> None:
        """Make a slow copy of the values of parameters that have none yet."""
        new = self._phi.add(values)
        if new and self._make_outer:
            if self._outer is None:
                self._outer = self._make_outer(new, lr=0.0)
            else:
                self._outer.add_param_group({"params": new})

    def _copy_what_trains(self) -> None:
        training = (p for p in self._parameters() if p.requires_grad or p.grad is not None)
        if new := {p: p for p in training if p not in self._phi.copies}:
            self._add_copies(new)

    def _is_for_the_state_alone(self) -> bool:
        """Whether a step is torch.distributed.checkpoint's, which makes the state: zero rates and zero gradients."""
        if self.current_loop or any(float(group.get("lr", 0.0)) for group in self.param_groups):
            return False
        gradients = [p.grad for p in self._parameters() if p.grad is not None]
        if any(gradient.layout != torch.strided for gradient in gradients):
            return False
        return bool(gradients) and float(get_total_norm(gradients, norm_type=1.0)) == 0.0

    def _make_state(self) -> None:
        """Make all entries that there will be; the first real step makes them anew."""
        self._before_first = copied(self.inner.state)
        self.inner.step()
        self._copy_what_trains()
        if self._outer:
            self._phi.step(self._outer, [copy.clone() for copy in self._phi.copies.values()], eta=0.0)

    def _forget_made_state(self) -> None:
        """Undo ``_make_state``, and with it whatever weights it has seen."""
        if self._before_first is not None:
            self._set_inner_state(self._before_first)
            self._before_first = None
        self._drop_copies()

    def _set_inner_state(self, entries: Entries) -> None:
        """Give the inner optimizer entries; a parameter that was added since they were left begins as it is known."""
        added = {p: own for p, own in self._initial.items() if p not in entries}
        self.inner.state.clear()
        self.inner.state.update(copied(added) | entries)


def _part(entries: Entries, name: str) -> dict[Tensor, Any]:
    """One of the entries of those parameters that have it."""
    return {parameter: own[name] for parameter, own in entries.items() if name in own}


def _walks_in(entries: Entries) -> list[int]:
    """The trajectories that a state has beside the one in the parameters."""
    return sorted({int(walk) for own in entries.values() for walk in own.get("walks", ())})


def _walk(entries: Entries, walk: int) -> Entries:
    """A trajectory's entries and weights."""
    return {p: own["walks"][str(walk)] for p, own in entries.items() if str(walk) in own.get("walks", ())}


def _other_parameters() -> ValueError:
    return ValueError("this state belongs to other parameters: build model and optimizer as when it was saved")
