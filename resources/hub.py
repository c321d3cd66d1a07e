"""Repositories of the hub: whether one can be had, and its library's many errors in one sentence."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from resources.disk import REFUSED, causes, is_full
from resources.errors import BadInput, one_line
from resources.sources import local_folder

if TYPE_CHECKING:
    import httpx2

RepoType = Literal["model", "dataset"]
PATIENCE_S = 5.0
"""For a first answer of the hub; its own library waits and tries again for most of a minute."""

CACHE_FULL = "the disk of the hub's cache is full: free some space, or set HF_HOME to a folder of a larger one"


def is_cached(source: str, revision: str, kind: RepoType) -> bool:
    """Whether the cache holds a snapshot of the commit, perhaps without every file."""
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(source, revision=revision, repo_type=kind, local_files_only=True)
    except (OSError, ValueError):
        return False
    return True


def hub_answers() -> bool:
    """Whether anything at all comes back from the hub's address."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE and _answers(constants.ENDPOINT)


def unreachable(name: str) -> str:
    """What is said of a repository that is not here when the hub does not answer."""
    return (
        f"{name} is neither a local folder nor whole in the local hub cache, and the hub cannot be reached; "
        "download it on a machine with network, or name a local folder"
    )


def refusal(name: str, kind: RepoType) -> str | None:
    """Why this user may not read a repository, as the hub says; None when he may, or the hub says nothing."""
    import httpx2
    from huggingface_hub import auth_check
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        with _hub_or_cache():
            auth_check(name, repo_type=kind)
    except (GatedRepoError, RepositoryNotFoundError) as error:
        return _from_the_hub(name, error)
    except (OSError, httpx2.HTTPError):  # it answers something else, or no longer
        return None
    return None


def fetched(source: str, revision: str | None, *, kind: RepoType = "model", files: Sequence[str] = ("*",)) -> Path:
    """The folder of a source: a local one, or the hub's snapshot of that commit and no other.

    Raises:
        BadInput: when it is neither here nor on the hub.
    """
    folder = local_folder(source)
    if folder is not None:
        return folder
    from huggingface_hub import snapshot_download

    with explained(source):
        return Path(snapshot_download(source, revision=revision, repo_type=kind, allow_patterns=list(files)))


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn the hub's many errors into one sentence that names the missing thing; a hub that is away costs no waiting.

    Raises:
        BadInput: when `name` cannot be loaded.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    from_hub = local_folder(name) is None
    try:
        with _hub_or_cache() if from_hub else nullcontext():
            yield
    except BadInput:
        raise
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        if _is_lack_of_memory(error):
            raise
        if not from_hub:
            raise BadInput(f"{name} is a folder but cannot be loaded: {_first_line(error)}") from error
        raise BadInput(_from_the_hub(name, error)) from error


@contextmanager
def _hub_or_cache() -> Iterator[None]:
    """The hub's library, told to look into its cache alone while the hub does not answer."""
    from huggingface_hub import constants

    _give_up_on_silent_hubs()
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = not hub_answers()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@cache
def _answers(address: str) -> bool:
    import httpx2
    from huggingface_hub import get_session

    try:
        get_session().head(address, timeout=PATIENCE_S)
    except httpx2.HTTPError:
        return False
    return True


@cache
def _give_up_on_silent_hubs() -> None:
    """Listing a repository asks without a timeout: a hub that accepts and says nothing would be waited for forever."""
    from huggingface_hub import constants, get_session

    def limit(request: "httpx2.Request") -> None:
        waits = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {
            what: constants.HF_HUB_DOWNLOAD_TIMEOUT if waits.get(what) is None else waits[what]
            for what in ("connect", "read", "write", "pool")
        }

    session = get_session()
    session.event_hooks = {**session.event_hooks, "request": [*session.event_hooks["request"], limit]}


def _is_lack_of_memory(error: Exception) -> bool:
    torch = sys.modules.get("torch")  # without it nothing has asked a device for memory, and importing it takes seconds
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def _from_the_hub(name: str, error: Exception) -> str:
    from safetensors import SafetensorError

    answered = _answer_of_the_hub(error)
    if answered is not None:
        return f"{name} cannot be loaded from the hub: {answered}"
    if isinstance(error, SafetensorError):
        return (
            f"{name} was downloaded but its weights are damaged ({_first_line(error)}); delete it from the hub's cache "
            "(HF_HOME) and run again"
        )
    stopped = _cache_told(error)
    if stopped is not None:
        return f"{name} cannot be downloaded: {stopped}, and run the same command again"
    if not hub_answers():
        return unreachable(name)
    return (
        f"{name} cannot be loaded: the hub breaks off or gives damaged files ({_first_line(error)}); try again, "
        "download it on a machine with a better network, or name a local folder"
    )


def _cache_told(error: Exception) -> str | None:
    """What the disk of the hub's cache had against a download; None when it had nothing."""
    for cause in causes(error):
        if is_full(cause):
            return CACHE_FULL
        if isinstance(cause, OSError) and cause.errno in REFUSED and cause.filename:
            return (
                f"{cause.filename}, in the hub's cache, cannot be written: give this user the right to, or set HF_HOME "
                "to another folder"
            )
    return None


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return one_line(lines[0]) if lines else type(error).__name__


def _answer_of_the_hub(error: Exception) -> str | None:
    """What the hub said that no second try will change, from the errors behind an error; None when it said nothing."""
    from huggingface_hub import errors

    for behind in causes(error):
        if isinstance(behind, errors.GatedRepoError):
            return "access must be asked for on its page; then set HF_TOKEN or run `hf auth login`"
        if isinstance(behind, errors.RepositoryNotFoundError):
            return "it is not there, or private: check the name, or set HF_TOKEN"
        if isinstance(behind, errors.RevisionNotFoundError):
            return "it has no such revision: check `revision`"
        response = getattr(behind, "response", None)
        if response is not None and response.status_code >= 400:
            return f"the hub answered {response.status_code}; " + (
                "try again later" if response.status_code >= 429 else "check the name and HF_TOKEN"
            )
    return None
