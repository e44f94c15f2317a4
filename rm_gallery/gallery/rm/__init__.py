"""Reward modules: prompt builders under the names that training datasets instantiate."""
