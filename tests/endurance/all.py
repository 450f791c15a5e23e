"""All campaigns, in the order of the table."""

from __future__ import annotations

from tests.endurance import configs, headers, indexes, pickles, recipes, series
from tests.endurance.campaign import Campaign

QUICK = 50  # with --quick the cases of a campaign are divided by this
CAMPAIGNS: tuple[Campaign, ...] = tuple(
    module.CAMPAIGN for module in (headers, recipes, indexes, pickles, configs, series)
)
