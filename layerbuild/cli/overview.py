"""What `layerbuild --help` tells of the commands: a line for each, under headings. No command is imported for it."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

#: Heading → command → what it does, in a line that has room on a terminal of 80 columns.
OVERVIEW: Final = MappingProxyType(
    {
        "Build": {
            "build": "Build an image from a recipe.",
            "plan": "Show what a recipe will make, and what of it is cached.",
            "lint": "Check a recipe against BuildKit's rules of good writing.",
            "context": "List what COPY can take, after the ignore file.",
            "parse": "Print the statements of a recipe as JSON.",
            "base": "Make a base image without a registry.",
        },
        "See and understand": {
            "layers": "Show which instruction made which layer, and its names.",
            "where": "Show the folders of the layers on this disk, and what is in them.",
            "history": "Show the history of an image, newest entry first.",
            "inspect": "Tell all about images, as JSON in the shape of `docker inspect`.",
            "blame": "Show which instruction made, changed or deleted a path.",
            "diff": "Show what two images, layers or steps differ in.",
            "explain": "Tell why steps hit the cache or missed.",
            "logs": "Show what the steps of a build said.",
            "advise": "Show what an image wastes, and what would mend it.",
            "verify": "Recompute every claim of an image, or build a recipe twice.",
            "report": "Write what there is to see of an image as one page of HTML.",
            "learn": "Take a lesson about layers.",
        },
        "Run": {
            "run": "Run a command in a container of an image.",
            "shell": "Enter a failed step, the state after a step, or an image.",
        },
        "Images": {
            "images": "List the images in the store.",
            "tag": "Give an image one more name.",
            "rmi": "Remove images, or names of them.",
            "pull": "Bring images from registries.",
            "push": "Send images to registries.",
            "login": "Keep a user and a password for a registry.",
            "logout": "Forget them.",
            "save": "Save images into one file.",
            "load": "Load images from an archive or an OCI layout.",
            "import": "Make an image of a root file system.",
        },
        "Machine and store": {
            "doctor": "Say what this machine can do, and what helps where it can't.",
            "df": "Show what the store takes on the disk.",
            "prune": "Remove what nothing needs.",
        },
    }
)

EPILOG: Final = """\
Begin with `layerbuild doctor`, or with `layerbuild learn`. `layerbuild COMMAND --help` tells more of a command.

Exit codes: 0 done, 1 a build or a RUN failed, 2 wrong use, 3 the recipe is wrong, 69 registry or credentials, 77 this
machine can't, 102 out of space, 130 and 143 stopped.
"""
