"""A folder of this disk as an S3 bucket, for reading, as fast as loopback goes.

    python -m tests.benchmarks.s3_folder FOLDER

prints its endpoint; every bucket of it is FOLDER. The moto server of the tests holds objects in
memory and copies a whole one for each range, which would measure moto. This one answers what s3fs
asks for to list and to read (ListObjectsV2, HeadObject, GetObject with a range), and lets the
kernel send the bytes.
"""

from __future__ import annotations

import argparse
import os
import re
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    root = Path()

    def do_GET(self) -> None:  # http.server calls it so
        self._answer(send=True)

    def do_HEAD(self) -> None:
        self._answer(send=False)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, *, send: bool) -> None:
        url = urlsplit(self.path)
        key = unquote(url.path).strip("/").partition("/")[2]
        if not key:
            self._list(parse_qs(url.query))
            return
        path = self.root / key
        if not path.is_file():
            self._reply(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        stat = path.stat()
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        start, stop = (int(asked[1]), int(asked[2]) + 1) if asked else (0, stat.st_size)
        stop = min(stop, stat.st_size)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{stat.st_size}")
        self.send_header("ETag", f'"{stat.st_mtime_ns:x}"')
        self.send_header("Last-Modified", formatdate(stat.st_mtime, usegmt=True))
        self.end_headers()
        if not send:
            return
        self.wfile.flush()
        with path.open("rb") as file:
            while start < stop:
                start += os.sendfile(self.connection.fileno(), file.fileno(), start, stop - start)

    def _list(self, query: dict[str, list[str]]) -> None:
        prefix = query.get("prefix", [""])[0]
        delimiter = query.get("delimiter", [""])[0]
        folders, files = set(), []
        top = self.root / prefix.rpartition("/")[0]
        for path in sorted(top.rglob("*")) if top.is_dir() else ():
            key = path.relative_to(self.root).as_posix()
            if not path.is_file() or not key.startswith(prefix):
                continue
            below = key[len(prefix) :]
            if delimiter and delimiter in below:
                folders.add(prefix + below.partition(delimiter)[0] + delimiter)
                continue
            stat = path.stat()
            files.append(
                f"<Contents><Key>{escape(key)}</Key><Size>{stat.st_size}</Size>"
                f"<ETag>&quot;{stat.st_mtime_ns:x}&quot;</ETag>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            )
        shared = [f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>" for f in folders]
        body = f"<ListBucketResult>{''.join([*files, *shared])}</ListBucketResult>"
        self._reply(200, body.encode())

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    Handler.root = parser.parse_args().folder.resolve()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
