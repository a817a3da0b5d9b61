"""The operation's own tests run in a copy of the package that has the operation."""

collect_ignore = ["files"]
