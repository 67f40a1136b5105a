"""What becomes of a choice: the job's record and lifecycle, its script, its status, and what people are told of it.

A job that may be alive is never forgotten, and whatever goes wrong has a sentence. Of JupyterHub only the exception
in `errors` is known.
"""
