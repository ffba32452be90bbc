"""Playing: episodes by (seed, i), what is collected from them, and what they say."""
