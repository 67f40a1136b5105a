"""Programs that run without snowyspawner, in a job or as a person: the launcher and its end_warning, the helper.

Each is sent as text: Python 3.6 and its standard library are enough for it, and no other module imports it.
"""
