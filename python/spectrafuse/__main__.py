"""`python -m spectrafuse`: the same command line as `spectrafuse`."""

from spectrafuse.cli import main

if __name__ == "__main__":
    main()
