"""`python -m fedrobust` is `fedrobust`."""

from fedrobust.commands.cli import main

if __name__ == "__main__":
    main()
