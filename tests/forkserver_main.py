"""The process that commands are forked from: see forkserver.py. Its text is handed to an interpreter of any user."""

import gc
import importlib
import json
import os
import pkgutil
import select
import socket
import sys
import time

import layerbuild
from layerbuild.cli.main import run

# What modules of ours import only when it is of use.
LATE = ("email.message", "jinja2", "ssl", "subprocess", "tempfile", "urllib3", "yaml", "deflate", "isal", "zstandard")


def serve(control: socket.socket) -> None:
    """Fork a command for each request, and tell how it ended. Comes back in the command, and exits without requests.

    A request comes with descriptors: a file that describes it, standard streams, and where to write the exit code.
    """
    poll = select.poll()
    poll.register(control, select.POLLIN)
    running: dict[int, tuple[int, int]] = {}
    while True:
        for ready, _ in poll.poll():
            if ready == control.fileno():
                message, received, _, _ = socket.recv_fds(control, 1, 5)
                if not message:
                    os._exit(0)
                request, *streams, answer = received
                pid = os.fork()
                if pid == 0:
                    become(request, streams)
                    os.closerange(3, max(*received, *running, control.fileno()) + 1)
                    return
                for descriptor in (request, *streams):
                    os.close(descriptor)
                process = os.pidfd_open(pid)
                running[process] = (pid, answer)
                poll.register(process, select.POLLIN)
            else:
                pid, answer = running.pop(ready)
                poll.unregister(ready)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                os.write(answer, str(code).encode())
                os.close(answer)
                os.close(ready)


def become(request: int, streams: list[int]) -> None:
    """Take what the request describes for this process's own."""
    with os.fdopen(request, closefd=False) as file:
        described = json.load(file)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.environ.clear()
    os.environ.update(described["environment"])
    time.tzset()
    os.chdir(described["folder"])
    sys.argv[1:] = described["arguments"]


for module in pkgutil.walk_packages(layerbuild.__path__, "layerbuild."):
    if module.name != "layerbuild.__main__":
        importlib.import_module(module.name)
for name in LATE:
    importlib.import_module(name)
gc.freeze()
serve(socket.socket(fileno=int(sys.argv[1])))
run()
