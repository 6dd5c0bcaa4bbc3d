"""``python -m restorer`` is the command line."""

from restorer.cli import main

if __name__ == "__main__":
    main(prog_name="restorer")
