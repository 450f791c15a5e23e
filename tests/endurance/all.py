"""All campaigns, in the order of the table."""

from __future__ import annotations

from tests.endurance import (
    away,
    configs,
    descriptors,
    faults_push,
    faults_run,
    full_disks,
    headers,
    indexes,
    kills_push,
    kills_run,
    outages,
    pickles,
    recipes,
    series,
    two_machines,
)
from tests.endurance.campaign import Campaign

QUICK = 50  # with --quick the cases of a campaign are divided by this
_MODULES = (
    *(headers, indexes, pickles, configs, recipes),
    *(series, kills_run, full_disks, two_machines, descriptors),
    *(kills_push, away, outages, faults_run, faults_push),
)
CAMPAIGNS: tuple[Campaign, ...] = tuple(module.CAMPAIGN for module in _MODULES)
