"""The service by pipes: a request a line, answers and progress a line each, in JSON.

-> {"id": 1, "do": "upscale", "input": "photo.jpg", "output": "large.png", "scale": 2}
<- {"id": 1, "event": "progress", "stage": "enlarging", "progress": 0.5, "seconds_left": 1.2}
<- {"id": 1, "result": {"output": "large.png", "width": 512, ...}}
<- {"id": 1, "error": {"message": "...", "hint": "...", "exit_code": 2}}
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from resshift_cli.errors import OutputError, UsageError, expected
from resshift_cli.imaging import targets
from resshift_cli.imaging.masks import ALPHA
from resshift_cli.imaging.sources import Source
from resshift_cli.serving import asking
from resshift_cli.serving.jobs import Job
from resshift_cli.serving.photos import Photo
from resshift_cli.serving.service import Service, Wish
from resshift_cli.serving.work import Made

LONGEST = 1 << 20  # characters of a request
OFTEN = 0.2  # seconds between two lines of progress of a job


class Pipes:
    """Reads requests, and answers them.

    Args:
        service: what is asked.
        out: where answers go.
    """

    def __init__(self, service: Service, out: TextIO) -> None:
        self.service, self.out = service, out
        self._writing = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._watching: list[threading.Thread] = []
        self._actions: dict[str, Callable[[Any, dict[str, Any]], None]] = {
            **{task: partial(self._make, task) for task in asking.TASKS},
            "estimate": self._estimate,
            "models": lambda key, given: self._answer(key, service.models.documents()),
            "version": lambda key, given: self._answer(key, service.version()),
            "cancel": self._cancel,
        }

    def run(self, lines: Iterable[str]) -> None:
        """Do what all lines ask for, and return when it is done."""
        for line in lines:
            if line.strip():
                self._take(line)
        for watching in self._watching:
            watching.join()

    def _take(self, line: str) -> None:
        key: Any = None
        try:
            given = _read(line)
            key = given.pop("id", None)
            action = given.pop("do", None)
            if not isinstance(action, str) or action not in self._actions:
                raise UsageError(
                    f"There is nothing called {json.dumps(action)[:60]} to do.",
                    hint=f"`do` is one of {', '.join(self._actions)}.",
                )
            self._actions[action](key, given)
        except Exception as error:
            self._fail(key, error)

    def _make(self, task: str, key: Any, given: dict[str, Any]) -> None:
        wish, output = self._wish(task, given), given.pop("output", None)
        if not isinstance(output, str) or not output:
            raise UsageError("No output is named.", hint='Add "output": a file to be written.')
        overwrite = given.pop("overwrite", False)
        if not isinstance(overwrite, bool):
            raise UsageError("'overwrite' is neither true nor false.", hint="Give one of them.")
        target = Path(output)
        if self.service.shelf.root.path is None:
            targets.check_writable(target, overwrite=overwrite)
        given.setdefault("format", target.suffix[1:].lower() or None)
        job = self.service.make(wish, "stdio")
        self._jobs[json.dumps(key)] = job
        save = partial(self._save, target, overwrite)
        watching = threading.Thread(target=self._watch, args=(key, job, save), daemon=True)
        self._watching = [each for each in self._watching if each.is_alive()] + [watching]
        watching.start()

    def _save(self, target: Path, overwrite: bool, made: Made) -> str:
        """Put a result where it belongs."""

        def copy(file: BinaryIO) -> None:
            with made.path.open("rb") as result:
                shutil.copyfileobj(result, file, 1 << 20)

        if self.service.shelf.root.path is None:
            targets.save(copy, target, overwrite=overwrite)
        else:
            self.service.shelf.root.save(copy, target.as_posix(), overwrite=overwrite)
        return str(target)

    def _watch(self, key: Any, job: Job, save: Callable[[Made], str]) -> None:
        """Tell how far a job is, and in the end what became of it."""
        news = threading.Event()
        with job.watched(news.set):
            while not job.ended:
                news.wait()
                news.clear()
                told = job.document()
                about = {name: told[name] for name in ("stage", "progress", "seconds_left")}
                self._say({"id": key, "event": "progress", **about})
                time.sleep(OFTEN)
        try:
            if job.error is not None:
                raise job.error
            self._answer(key, {"output": save(job.outcome), **job.outcome.told})
        except Exception as error:
            self._fail(key, error)
        self._jobs.pop(json.dumps(key), None)
        self.service.drop(job)

    def _estimate(self, key: Any, given: dict[str, Any]) -> None:
        wish = self._wish(given.pop("task", "upscale"), given)
        self._answer(key, self.service.estimate(wish))

    def _cancel(self, key: Any, given: dict[str, Any]) -> None:
        job = self._jobs.get(json.dumps(given.get("of")))
        if job is None:
            raise UsageError("There is no such job.", hint='Name its request\'s id in "of".')
        self.service.jobs.cancel(job)
        self._answer(key, {})

    def _wish(self, task: str, given: dict[str, Any]) -> Wish:
        """What is asked for by values, which lose what are no options."""
        path, mask = given.pop("input", None), None
        if not isinstance(path, str) or not path:
            raise UsageError("No input is named.", hint='Add "input": an image file.')
        if asking.kind(task).is_masked:
            mask = given.pop("mask", None)
            if not isinstance(mask, str | None):
                raise UsageError("The mask is no text.", hint='Add "mask": an image file.')
            if mask and mask != ALPHA and not mask.startswith("#"):
                mask = self._photo(mask)
        return Wish(self._photo(path), given, task, mask or None)

    def _photo(self, path: str) -> Photo:
        if self.service.shelf.root.path is not None:
            return self.service.shelf.open(path)
        source = Source(Path(path))
        with source.open():
            state = source.state()
        return self.service.shelf.know(
            Photo(Path(path).name, source.open, state.size if state else 0)
        )

    def _answer(self, key: Any, result: object) -> None:
        self._say({"id": key, "result": result})

    def _fail(self, key: Any, error: Exception) -> None:
        self._say({"id": key, "error": expected(error).facts()})

    def _say(self, told: dict[str, Any]) -> None:
        with self._writing:
            try:
                self.out.write(json.dumps(told) + "\n")
                self.out.flush()
            except (BrokenPipeError, OutputError):  # whoever asked has gone away
                for job in list(self._jobs.values()):
                    self.service.jobs.cancel(job)


def _read(line: str) -> dict[str, Any]:
    if len(line) > LONGEST:
        raise UsageError("The line is too long.", hint="Name files by their paths.")
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError("The line is no JSON.", hint="Send one object a line.") from error
    if not isinstance(found, dict):
        raise UsageError("The line is no JSON object.", hint='Send such as {"do": "version"}.')
    return found
