"""Stable-Baselines3 and sb3-contrib: zips become our own policies, without either library."""
