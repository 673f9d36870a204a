"""`python -m epaxos` is the command `epaxos`."""

from epaxos.cli import main

if __name__ == "__main__":
    main()
