"""A policy in the form in which others run it, with a contract of what goes in and what comes out."""
