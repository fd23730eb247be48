"""A Ray cluster that does jobs: each is a Ray task, which begins the job's process on its node and relays its words."""

import logging
import math
import os
import queue
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from typing import Any

from multitune.errors import UserError
from multitune.jobs.job import Job, Message
from multitune.jobs.processes import Process
from multitune.jobs.schedule import TICK, Event, Gone

try:
    import ray
    from ray.exceptions import RayError
except ImportError as error:
    raise UserError('--on: ray is not installed; pip install "multitune[ray]"') from error

AT_ONCE = 1000
"""Jobs that are handed to Ray at once; it begins them as its nodes have room."""
REACHED_WITHIN = 10.0
"""Seconds in which a cluster's head answers; Ray itself tries for a quarter of an hour, and heeds no signal then."""


class OnRay:
    """Workers on a Ray cluster; its nodes have multitune installed, and share the folders with this machine.

    Args:
        address: of the cluster; "" begins one on this machine, or finds the one in RAY_ADDRESS.
        count: the most jobs at once; None leaves it to the nodes' cores and cards.
        threads: the most of a job.
        on_cards: whether jobs run on CUDA devices.

    Raises:
        UserError: there is no such cluster, or no node has as many cores as a job has threads.
    """

    def __init__(self, address: str, count: int | None, threads: int, *, on_cards: bool) -> None:
        _join(address)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cards = sum(node.get("GPU", 0) for node in nodes)
        if max(node.get("CPU", 0) for node in nodes) < threads:
            raise UserError(f"--on: no node of the Ray cluster has the {threads} cores that a run's threads need")
        self._count = count or AT_ONCE
        self._resources: dict[str, Any] = {"num_cpus": threads, "max_retries": 0}
        if on_cards and cards:
            self._resources["num_gpus"] = share_of_card(count, int(cards))

    def has_room(self, running: Collection[str]) -> bool:
        return len(running) < self._count

    def takes(self, job: str, bytes_held: int) -> None:
        """Nothing: each node's memory is Ray's to watch over."""

    def start(self, job: Job, report: Callable[[Event], None]) -> "RayTask":
        return RayTask(job, self._resources, report)


class RayTask:
    """One job as a Ray task, whose results are what the job tells, one by one.

    Args:
        job: what it does.
        resources: that Ray keeps for it.
        report: takes what it tells, from a thread.
    """

    def __init__(self, job: Job, resources: dict[str, Any], report: Callable[[Event], None]) -> None:
        self._name, self._report = job.name, report
        task = ray.remote(_done).options(name=job.name, num_returns="streaming", **resources)
        self._told: Any = task.remote(job)
        threading.Thread(target=self._listen, daemon=True).start()

    def stop(self) -> None:
        ray.cancel(self._told, force=False)

    def kill(self) -> None:
        ray.cancel(self._told, force=True)

    def _listen(self) -> None:
        """Report what the task tells, and at last that it is gone; it may have died with its worker or its node."""
        gone = Gone("ended with its Ray worker")
        try:
            for told in self._told:
                event = ray.get(told)
                if isinstance(event, Gone):
                    gone = event
                else:
                    self._report((self._name, event))
        except (RayError, KeyboardInterrupt) as error:
            reason = str(error).strip().rpartition("\n")[2]  # of what is raised there, the last line names it
            gone = Gone(f"{gone.how} ({reason})" if reason else gone.how)
        self._report((self._name, gone))


def _done(job: Job) -> Iterator[Message | Gone]:
    """Do a job on the node where this is called, and yield what it tells; a cancelled task lets it save and end."""
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    process, gone = Process(job, dict(os.environ), events.put), False
    while not gone:
        try:
            _, event = events.get(timeout=TICK)
        except queue.Empty:
            continue
        except KeyboardInterrupt:
            process.stop()
            continue
        gone = isinstance(event, Gone)
        yield event


def share_of_card(count: int | None, cards: int) -> float:
    """How much of a card each of so many jobs takes, such that all of them have room at once; None: a whole one."""
    on_each = math.ceil(count / cards) if count else 1
    return math.floor(1000 / on_each) / 1000


def _join(address: str) -> None:
    if ray.is_initialized():
        return
    _check_reached(address or os.environ.get("RAY_ADDRESS", ""))
    try:
        ray.init(address=address or None, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"--on: ray:{address}: there is no such Ray cluster: {error}") from error


def _check_reached(address: str) -> None:
    """Raise UserError where a cluster has a host and a port, and nobody listens there."""
    if "//" in address:
        raise UserError(f"--on: {address!r}: Ray's client cannot do runs; on a node of the cluster write ray:HOST:6379")
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        return  # a word of Ray's, or nothing
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED_WITHIN).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--on: ray:{address}: there is no such Ray cluster: {error}") from error
