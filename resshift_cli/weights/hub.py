"""Files of the Hugging Face Hub, through `huggingface_hub` and in its own cache.

Its variables hold, since all of it is left to it: HF_HOME, HF_TOKEN, HF_ENDPOINT and the rest.
Nothing of what it would print or draw reaches the user.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resshift_cli.errors import ResShiftError, UsageError
from resshift_cli.system import atomic
from resshift_cli.weights import addresses
from resshift_cli.weights.entries import HubSource
from resshift_cli.weights.transfer import (
    LONGEST_WAIT,
    TWICE,
    Admission,
    Failure,
    Meter,
    answered,
    causes,
)

if TYPE_CHECKING:
    import httpx2
    from tqdm import tqdm

HOME = "HF_HOME"  # environment variable: its cache elsewhere
SLACK = 1 << 20  # bytes that its client may count beyond a file's size

_NEEDS_TOKEN = (
    "Put the token of a Hugging Face account that may read it into the variable HF_TOKEN "
    "(https://huggingface.co/settings/tokens)."
)
_NO_NAME, _NAME = "can't be the name of a repository", "Name it USER/NAME (--repo)."
_NEEDS_WRITING = (
    "Put a token that may write into the variable HF_TOKEN "
    "(https://huggingface.co/settings/tokens)."
)


def is_offline() -> bool:
    """Whether the environment forbids the network, read as `huggingface_hub` reads it."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in {"1", "ON", "YES", "TRUE"}


def cache_folder() -> Path:
    """Where it keeps files."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def endpoint() -> str:
    """The Hub's URL, or that of a mirror."""
    from huggingface_hub import constants

    return constants.ENDPOINT


def find(source: HubSource) -> Path | None:
    """Where a file lies in its cache, or None; no network."""
    with quiet():
        if not (cache_folder() / f"models--{source.repo.replace('/', '--')}").is_dir():
            return None  # without the half second that the client's import takes
        from huggingface_hub import try_to_load_from_cache

        try:
            path = try_to_load_from_cache(source.repo, source.file, revision=source.revision)
        except ValueError:  # a name that no repository can have
            return None
    return Path(path) if isinstance(path, str) else None


def offers(source: HubSource, *, within: float) -> bool:
    """Whether the Hub answers for a file, in so many seconds; call it within `quiet`."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    try:
        url = hf_hub_url(source.repo, source.file, revision=source.revision)
        get_hf_file_metadata(url, timeout=within)
    except Exception:  # of its own, or of its HTTP client; the reason does not matter
        return False
    return True


def receive(source: HubSource, meter: Meter, admit: Admission) -> tuple[Path, str]:
    """Have a file downloaded, even if its cache has one; its path there.

    Args:
        source: the file.
        meter: told the progress.
        admit: told the file's size and checksum before anything is written.

    Returns:
        The path, and the SHA-256 that the Hub says the file has, or "" where it does not say.

    Raises:
        Failure: the Hub does not answer, or not with the file.
        OSError: the cache can't be written.
    """
    with quiet(), _short_waits():
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

        try:
            # hf_hub_download asks the same, but takes half a minute to see that there is no
            # network, and only warns when the disk has no room.
            url = hf_hub_url(source.repo, source.file, revision=source.revision)
            offered = get_hf_file_metadata(url)
            promised = _promised(offered.etag)
            meter.most = admit(offered.size, 0, promised) + SLACK
            path = hf_hub_download(
                source.repo,
                source.file,
                revision=source.revision,
                force_download=find(source) is not None,
                tqdm_class=_bar(meter),
            )
        except (ResShiftError, Failure):
            raise
        except Exception as error:  # of its own, of its HTTP client, or of hf_xet
            if _is_of_the_disk(error):
                raise
            raise _failure(error) from error
    return Path(path), promised


def _promised(etag: str | None) -> str:
    """What the Hub says a large file's SHA-256 is; "" for small files."""
    return etag if etag and re.fullmatch("[0-9a-f]{64}", etag) else ""


def drop(source: HubSource) -> int:
    """Delete one file from the Hub's cache, and no other of its repository; the bytes freed.

    Raises:
        OSError: it can't be deleted.
    """
    path = find(source)
    if path is None:
        return 0
    with quiet():
        from huggingface_hub import scan_cache_dir

        cache = scan_cache_dir()
        link = path.parent.resolve() / path.name
        files = (f for repo in cache.repos for rev in repo.revisions for f in rev.files)
        strategy = cache.delete_files(*[file for file in files if file.file_path == link])
        strategy.execute()
    if find(source) is not None:  # it only logs what it can't delete
        raise PermissionError(errno.EACCES, "a file can't be deleted", str(path))
    return strategy.expected_freed_size


def publish(repo: str, files: Mapping[str, Path], *, message: str, private: bool) -> str:
    """Put files into a model repository of the user's, as one commit; it is made if need be.

    Args:
        repo: `user/name`.
        files: names in the repository, and the files.
        message: of the commit.
        private: whether nobody else may see a repository that is made.

    Returns:
        The address of the repository.

    Raises:
        UsageError: no repository can have this name, or a public one is to be private.
        ResShiftError: there is no token, it may not write there, or the Hub can't be reached.
    """
    if is_offline():
        raise ResShiftError(
            "Nothing can be published offline.",
            hint="Unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE.",
        )
    with quiet():
        from huggingface_hub import CommitOperationAdd, HfApi, get_token
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
        from huggingface_hub.utils.tqdm import disable_progress_bars

        if repo.count("/") != 1:
            raise UsageError(f"'{repo}' {_NO_NAME}.", hint=_NAME)
        if get_token() is None:
            raise ResShiftError("Publishing needs a token of your account.", hint=_NEEDS_WRITING)
        disable_progress_bars()
        api = HfApi(library_name="resshift")
        try:
            try:
                api.create_repo(repo, private=private)
            except HfHubHTTPError as error:
                if error.response.status_code != 409:
                    raise
                if private and not api.model_info(repo).private:
                    raise UsageError(
                        f"{repo} exists already, and is public.",
                        hint="Choose another name, or make it private in its settings.",
                    ) from error
            additions = [CommitOperationAdd(name, str(path)) for name, path in files.items()]
            api.create_commit(repo, additions, commit_message=message)
        except ResShiftError:
            raise
        except HFValidationError as error:
            raise UsageError(f"'{repo}' {_NO_NAME}.", hint=_NAME) from error
        except Exception as error:  # of its own, of its HTTP client, or of hf_xet
            raise _not_published(repo, error) from error
    return f"{addresses.without_login(endpoint())}/{repo}"


def _not_published(repo: str, error: Exception) -> ResShiftError:
    """What an error of the client means when something is sent."""
    responses = (getattr(cause, "response", None) for cause in causes(error))
    status = next((r.status_code for r in responses if r is not None), None)
    if status in (401, 403):
        why = "is not valid" if status == 401 else "may not write there"
        return ResShiftError(
            f"{repo} can't be published: the token {why} ({status}).", hint=_NEEDS_WRITING
        )
    if isinstance(error, ValueError) and "README.md" in str(error):
        return ResShiftError(
            f"{repo} can't be published: the Hub does not take the front matter of README.md.",
            hint="Mend the lines between the first two --- of it.",
        )
    words = str(_failure(error)).replace("the download", "the upload")
    return ResShiftError(
        f"{repo} can't be published: {addresses.without_login(endpoint())}: {words}.",
        hint="The same command tries again.",
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep its warnings and log lines from the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from huggingface_hub.utils import logging as hub_logging

        level = hub_logging.get_verbosity()
        hub_logging.set_verbosity(logging.CRITICAL + 1)
        try:
            yield
        finally:
            hub_logging.set_verbosity(level)


@contextmanager
def _short_waits() -> Iterator[None]:
    """Keep its client from sleeping for as long as any server likes."""
    from huggingface_hub import get_session

    def shorten(response: httpx2.Response) -> None:
        for name in ("Retry-After", "RateLimit"):
            numbers = re.findall("[0-9]+", response.headers.get(name, ""))
            if any(len(number) > 2 or int(number) > LONGEST_WAIT for number in numbers[-1:]):
                del response.headers[name]

    session = get_session()
    hooks = session.event_hooks
    session.event_hooks = {**hooks, "response": [*hooks.get("response", []), shorten]}
    try:
        yield
    finally:
        session.event_hooks = hooks


def _bar(meter: Meter) -> type[tqdm[Any]]:
    """A class of bars that report to a meter and draw nothing.

    Because it takes `update_transfer`, the client makes only one: a second one would count the
    bytes on the wire, which may be fewer than those of the file.
    """
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]  # it is no generic class when it runs
        def __init__(self, *, total: int | None = None, initial: int = 0, **_: object) -> None:
            super().__init__(total=total, initial=initial, disable=True)
            meter.start(initial, total)

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            meter.advance(round(n or 0))

        def update_transfer(self, n: float) -> None:
            pass

        def set_transfer_postfix_str(self, s: str = "", refresh: bool = True) -> None:
            pass

    return Bar


def _is_of_the_disk(error: Exception) -> bool:
    if not isinstance(error, OSError) or error.errno is None:
        return False
    return error.filename is not None or atomic.is_full(error)


def _failure(error: Exception) -> Failure:
    """What an error of the client means."""
    from huggingface_hub.errors import FileMetadataError

    for cause in causes(error):
        response = getattr(cause, "response", None)
        if response is not None:
            return _answered(response.status_code, response.headers)
        if isinstance(cause, FileMetadataError):
            return Failure("does not answer as a Hugging Face Hub does")
        if isinstance(cause, TimeoutError):
            return Failure("no answer")
        if isinstance(cause, OSError) and cause.errno is not None:
            return Failure("no connection", tries=TWICE)
    return Failure(f"the download failed ({type(error).__name__})")


def _answered(status: int, headers: Mapping[str, str]) -> Failure:
    """What an answer other than the file means."""
    code = headers.get("X-Error-Code", "")
    if code == "GatedRepo":
        return Failure(f"its terms have to be accepted first ({status})", hint=_NEEDS_TOKEN)
    if status == 401:  # said of what does not exist, too
        return Failure("needs a login, or does not exist (401)", hint=_NEEDS_TOKEN)
    if status == 403:
        return Failure("403 forbidden", hint=_NEEDS_TOKEN)
    if code == "RevisionNotFound":
        return Failure("404 no such revision")
    return answered(status, headers)
