"""One person's choice: the request and its rules, how it is summed up, written as a line, kept as a preset.

A `request.SessionRequest` has been checked against its Site, whichever way it came in. Nothing in here asks Slurm or
knows JupyterHub.
"""
