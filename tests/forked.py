"""Commands in processes of their own that need not start from nothing.

Most of what a short command takes is the start of Python and torch. Here a process that has done
that forks for each command, which has the environment, the folder and the streams that are told,
nothing of what ran before, and ends as any. Where the start, memory, signals or a terminal are what
is tested, a command is started in full: `faults.begin`, `command_line.start`.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from threading import Lock

from command_line import Ran, as_from_a_shell

COMMAND = "from resshift_cli import __main__; __main__.main()"
"""What `python -m resshift_cli` runs."""

# What reads the environment when it is imported has to be left to each command.
_PARENT = """
import gc, json, os, sys, torch
from resshift_cli.commands import app
from resshift_cli.restoration import upscaler
assert "huggingface_hub" not in sys.modules
gc.freeze()
for line in sys.stdin:
    order = json.loads(line)
    if not (child := os.fork()):
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
os.chdir(order["folder"])
os.environ.clear()
os.environ |= order["environment"]
for number, path in enumerate((os.devnull, order["out"], order["err"])):
    os.dup2(os.open(path, os.O_RDWR), number)
sys.argv = ["resshift", *order["arguments"]]
if "OMP_NUM_THREADS" in os.environ:  # which is heeded when torch is imported
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
exec(order["program"], {"__name__": "__main__"})
"""
_ONE_AT_A_TIME = Lock()


@cache
def _parent(prefix: tuple[str, ...]) -> subprocess.Popen[str]:
    parent = subprocess.Popen(
        [*prefix, sys.executable, "-c", _PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=as_from_a_shell,
        start_new_session=True,  # Ctrl-C of whoever runs the tests is for pytest
    )
    atexit.register(parent.communicate)
    return parent


def run(
    *arguments: object,
    environment: Mapping[str, str],
    program: str = COMMAND,
    prefix: tuple[str, ...] = (),
) -> Ran:
    """What a command comes to.

    Args:
        program: may change things before it calls `main`.
        prefix: a command that starts the process which forks.
    """
    if not hasattr(os, "fork"):
        words = [sys.executable, "-c", program, *map(str, arguments)]
        ran = subprocess.run(words, capture_output=True, text=True, env=dict(environment))
        return Ran(ran.returncode, ran.stdout, ran.stderr)
    with tempfile.TemporaryDirectory() as folder, _ONE_AT_A_TIME:
        out, err = Path(folder, "out"), Path(folder, "err")
        out.touch()
        err.touch()
        order = {
            "arguments": [*map(str, arguments)],
            "environment": dict(environment),
            "folder": os.getcwd(),
            "out": str(out),
            "err": str(err),
            "program": program,
        }
        parent = _parent(prefix)
        assert parent.stdin is not None and parent.stdout is not None
        parent.stdin.write(json.dumps(order) + "\n")
        parent.stdin.flush()
        code = int(parent.stdout.readline())
        return Ran(code, *(path.read_text(errors="surrogateescape") for path in (out, err)))
