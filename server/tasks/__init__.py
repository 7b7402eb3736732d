"""Long calls as tasks (SEP-2663): the half that knows the protocol, and the one that knows runs."""
