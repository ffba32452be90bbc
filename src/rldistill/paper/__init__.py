"""The paper's experiments: what each compares, its jobs and who does them, its results as a page and a figure.

A user of the verbs below it, like you: nothing but the command line and `rldistill.reproduce` imports it.
"""
