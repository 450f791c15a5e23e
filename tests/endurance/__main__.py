"""Command line of the endurance suite; see the package."""

from __future__ import annotations

from tests.fake_hub.fixtures import start_before_imports

start_before_imports()

import argparse  # noqa: E402
import logging  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

from tests.endurance import __doc__ as about  # noqa: E402
from tests.endurance.all import CAMPAIGNS, QUICK  # noqa: E402
from tests.endurance.campaign import Bench, Campaign  # noqa: E402
from tests.endurance.trying import Row, table, try_cases  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
    """Try the campaigns asked for, print the table; returns 1 when a case failed."""
    names = [campaign.name for campaign in CAMPAIGNS]
    parser = argparse.ArgumentParser("python -m tests.endurance", description=about)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=names, help="repeatable")
    parser.add_argument("--quick", action="store_true", help=f"a case in {QUICK}, short outages")
    parser.add_argument("--cases", type=int, metavar="N", help="at most N of each campaign")
    parser.add_argument("--case", type=int, metavar="N", help="case N alone, with its traceback")
    asked = parser.parse_args(arguments)
    logging.disable(logging.ERROR)  # of failures that are caused here on purpose
    rows: list[Row] = []
    try:
        for campaign in CAMPAIGNS:
            if not asked.only or campaign.name in asked.only:
                rows.append(_campaign(campaign, asked))
    finally:
        print(table(rows))
    for failure in (failure for row in rows for failure in row.failures):
        print(failure)
    return int(any(row.failures for row in rows))


def _campaign(campaign: Campaign, asked: argparse.Namespace) -> Row:
    count = -(-campaign.cases // QUICK) if asked.quick else campaign.cases
    numbers = range(count if asked.cases is None else min(count, asked.cases))
    if asked.case is not None:
        numbers = range(asked.case, asked.case + 1)
    with tempfile.TemporaryDirectory(prefix=f"relex-{campaign.name}-") as folder:
        bench = Bench(asked.seed, Path(folder), asked.quick)
        return try_cases(campaign, bench, numbers, details=asked.case is not None)


if __name__ == "__main__":
    sys.exit(main())
