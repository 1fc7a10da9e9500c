"""`python -m monadnock`, and `torchrun -m monadnock`: the command line."""

from monadnock.cli import main

if __name__ == "__main__":
    main()
