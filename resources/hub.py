"""Whether a repository of the hub can be had: from this machine's cache, or because the hub answers at all."""

PATIENCE_S = 5.0
"""For one answer of the hub; its own library waits and tries again for most of a minute."""


def is_cached(source: str, revision: str, is_dataset: bool) -> bool:
    """Whether the cache holds a snapshot of the commit, perhaps without every file."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        snapshot_download(
            source, revision=revision, repo_type="dataset" if is_dataset else "model", local_files_only=True
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError):
        return False
    return True


def hub_answers() -> bool:
    """Whether anything at all comes back from the hub's address."""
    import httpx2
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE_S)
    except httpx2.HTTPError:
        return False
    return True
