"""Whether a training helped: the tuned model beside its base on the same rows."""
