"""``python -m fastgru``: the command line, also where its script is not on the path."""

from fastgru.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
