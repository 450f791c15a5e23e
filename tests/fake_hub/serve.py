"""Serve folders as Hub repos, for benchmarks and for looking around by hand.

    python -m tests.fake_hub.serve --port 8000 --repo org/series=FOLDER --repo org/base=MODEL

A folder that holds `config.json` is the branch `main`; otherwise each of its subfolders is a
branch of that name. Large files are served from disk. The first line printed is the endpoint;
`GET /_log` answers with one JSON object per request served so far.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import tempfile
import threading
from pathlib import Path

from tests.fake_hub.messages import Reply, Request, route
from tests.fake_hub.server import Hub


@route("GET", "/_log")
def request_log(hub: Hub, request: Request) -> Reply:
    lines = []
    for entry in hub.log.entries_now():
        fields = dataclasses.asdict(entry)
        del fields["headers"]
        lines.append(json.dumps({**fields, "range": entry.range}) + "\n")
    return Reply(200, {"Content-Type": "application/x-ndjson"}, "".join(lines).encode())


def add_folder(hub: Hub, repo_id: str, folder: Path) -> list[str]:
    """Make a repo from a folder of checkpoints, or of one model; returns its branches."""
    hub.create_repo(repo_id)
    if (folder / "config.json").is_file():
        hub.commit_folder(repo_id, folder, exact=False)
    else:
        for sub in sorted(path for path in folder.iterdir() if path.is_dir()):
            hub.commit_folder(repo_id, sub, branch=sub.name, message=sub.name, exact=False)
    return sorted(hub.heads(repo_id))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--repo", action="append", default=[], metavar="ORG/NAME=FOLDER")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="relex-hub-") as folder:
        hub = Hub(Path(folder) / "uploads", arguments.port)
        for item in arguments.repo:
            repo_id, _, source = item.partition("=")
            add_folder(hub, repo_id, Path(source))
        hub.start()
        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        print(hub.url, flush=True)
        stopped.wait()
        hub.stop()


if __name__ == "__main__":
    main()
