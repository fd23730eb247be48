"""How many cores of the processor a process may use."""

import torch

from multitune.storage.control_groups import Group, groups


def usable_cores() -> int:
    """The cores that this process may use: as many as torch has threads, and as its control groups grant.

    torch counts the cores on which the process may run, or reads OMP_NUM_THREADS. A container's share of their time
    (``docker run --cpus``, a limit of Kubernetes) it does not know; more threads than that would wait for each other
    while the system lets none of them run.
    """
    return min([torch.get_num_threads(), *filter(None, map(_granted, groups("cpu")))])


def _granted(group: Group) -> int | None:
    """The whole cores whose time a control group grants, at least one; None where it does not limit them."""
    if group.version == 2:
        quota, _, period = group.read("cpu.max").partition(" ")
    else:
        quota, period = group.read("cpu.cfs_quota_us"), group.read("cpu.cfs_period_us")
    return max(1, int(quota) // int(period)) if quota.isdecimal() else None
