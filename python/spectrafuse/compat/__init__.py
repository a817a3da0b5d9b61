"""Stand-ins for the two published packages: `hsi_global_clustering` and `ebgmcr`, on this package's operations.

`python -m spectrafuse.compat SCRIPT ARGS` runs a script that was written for them, without a change to it.
`README.md` beside this file lists what differs. Nothing heavy is imported until a part is first used.
"""
