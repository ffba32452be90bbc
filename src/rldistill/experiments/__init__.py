"""The paper's experiments: what each compares, the jobs it takes, and what its results say."""
