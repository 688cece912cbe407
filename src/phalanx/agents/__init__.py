"""Policies with memory per process, and how they learn."""
