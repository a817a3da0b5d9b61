"""`python -m spectrafuse`: the same command line as `spectrafuse`."""

from spectrafuse.cli.app import main

if __name__ == "__main__":
    main()
