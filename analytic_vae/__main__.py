"""The command line: `python -m analytic_vae learn` and `python -m analytic_vae show FOLDER`."""

import sys

from .cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
