"""What API, command line and Python say: plans, estimates, their explanation, and the contract's JSON."""
