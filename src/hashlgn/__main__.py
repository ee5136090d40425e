"""``python -m hashlgn`` is the command line, like the script ``hashlgn``."""

from hashlgn.cli.main import main

if __name__ == "__main__":
    main()
