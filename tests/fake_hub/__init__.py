"""A Hugging Face Hub on 127.0.0.1 that the real, unmodified huggingface_hub client talks to.

In `tests/conftest.py`, before anything imports huggingface_hub (see `fixtures`):

    from tests.fake_hub.fixtures import start_before_imports

    start_before_imports()
    from tests.fake_hub.fixtures import hub, hub_login, no_waiting, offline  # noqa: E402, F401

Fixtures: `hub` (the server, emptied for each test, with an empty client cache and nobody logged
in), `hub_login` (sets HF_TOKEN to a write token), `offline` (as HF_HUB_OFFLINE=1), `no_waiting`
(failed requests are repeated at once). `hub.env(home, token)` is the environment for a client
in another process that does not inherit ours.

State, without HTTP:

    sha = hub.commit("org/series", {"config.json": b"{}"}, branch="step_1")  # makes the repo
    hub.commit_folder("org/series", tmp_path, branch="step_2")  # exactly what the folder holds
    hub.create_repo("org/secret", private=True); hub.create_repo("org/gate", gated=True)
    hub.branch(repo, name, at=revision); hub.tag(repo, name, at=revision)
    hub.heads(repo); hub.files(repo, revision); hub.history(repo, revision); hub.repos[repo].pulls
    hub.add_token("hf_x", role="read", orgs=())  # orgs=(): a stranger to every namespace

What was asked, what goes wrong, what happens meanwhile:

    hub.requests("POST .*/commit/"); hub.log.bytes_sent("GET /cdn/"); hub.log.most_at_once("/cdn/")
    hub.faults.add(Fault("GET /cdn/", times=2, status=503))
    hub.faults.add(Fault("GET /cdn/.*model.safetensors", cut_after=1000))
    hub.after(3, "GET /cdn/", lambda: hub.branch("org/series", "step_1", at=other))
    hub.go_away(); hub.come_back()  # its ports are closed meanwhile
    hub.expire_urls()  # signed download URLs answer 403 from now on

A download of a large (LFS) file is `HEAD /org/name/resolve/REV/FILE` -> 302, then
`GET /cdn/org/name/SHA/FILE` on a second port; a small one is redirected (307) to
`/api/resolve-cache/models/org/name/SHA/FILE`. An upload is `POST .../preupload/REV`,
`POST /org/name.git/info/lfs/objects/batch`, `PUT /lfs/SHA256`, `POST .../commit/REV`.

`python -m tests.fake_hub.serve --repo org/series=FOLDER` serves folders from another process.
"""

from tests.fake_hub.faults import Fault
from tests.fake_hub.server import Hub

__all__ = ["Fault", "Hub"]
