"""What a browser or a job may ask of the hub: the form and its state, the pages' buttons, a job's claim and report.

A GET starts and ends nothing. What pages show was in memory already, except for a job's log.
"""
