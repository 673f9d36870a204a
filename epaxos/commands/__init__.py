"""What the commands of `epaxos` do; `cli.py` holds their words and options."""
