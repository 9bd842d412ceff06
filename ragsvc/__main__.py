"""``python -m ragsvc`` is the command line."""

from ragsvc.cli import main

if __name__ == "__main__":
    main()
