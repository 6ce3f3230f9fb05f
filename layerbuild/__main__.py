"""``python -m layerbuild``."""

from layerbuild.cli.main import run

if __name__ == "__main__":
    run()
