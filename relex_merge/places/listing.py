"""Everything below a folder of a place, by as few requests as its store allows."""

from __future__ import annotations

from typing import Any

from relex_merge.errors import RelexError
from relex_merge.places.address import join
from relex_merge.places.filesystem import Place, open_place
from relex_merge.places.pin import FileState, PlacePin, beside, files_in, state_of


def walk(place: Place) -> dict[str, PlacePin]:
    """Return every folder below a place that has files in it: path relative to it → its files.

    The place itself is "". The order is that of the paths.

    Raises:
        RelexError: there is no such folder, nothing is in it, or the place refuses.
    """

    def listing() -> dict[str, dict[str, Any]]:
        place.files.invalidate_cache()
        found: dict[str, dict[str, Any]] = place.files.find(place.path, detail=True)
        return found

    root = place.path.strip("/")
    folders: dict[str, dict[str, FileState]] = {}
    try:
        listed = place.ask(listing)
    except FileNotFoundError as error:
        raise RelexError(f"{place.address} does not exist{beside(place)}") from error
    for path, info in listed.items():
        below = path.strip("/").removeprefix(root).strip("/")
        if not below:
            files_in(place)  # says that it is a file
        folder, _, name = below.rpartition("/")
        if name and info["type"] == "file" and not path.endswith("/"):
            folders.setdefault(folder, {})[name] = state_of(info)
    if not folders:
        raise RelexError(f"{place.address} does not exist, or nothing is in it{beside(place)}")
    return {
        folder: PlacePin(
            open_place(join(place.address, folder)) if folder else place,
            dict(sorted(states.items())),
        )
        for folder, states in sorted(folders.items())
    }
