# The same lines as in CI; they stand in .ci/task, because CI has no just.

# lint, format, types, layers
check:
    .ci/task check

# pyright alone
types *ARGS:
    .ci/task types {{ARGS}}

# all tests, or those named
test *ARGS:
    .ci/task test {{ARGS}}

# tests that train nothing
fast *ARGS:
    .ci/task fast {{ARGS}}

# all tests, with the share of lines that they run
coverage *ARGS:
    .ci/task coverage {{ARGS}}

# write the tools' schemas and the generated parts of README.md and docs/ anew
snapshots:
    .ci/task snapshots

# licences of what is installed
licences:
    .ci/task licences

# known vulnerabilities of the versions that CI uses; needs the network
audit *ARGS:
    .ci/task audit {{ARGS}}

# one benchmark: just bench help_time
bench NAME *ARGS:
    python benchmarks/{{NAME}}.py {{ARGS}}

# all that must hold, in a fresh environment
ci:
    .ci/run
