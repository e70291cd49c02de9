"""Coding agents: how each is started, resumed and read; one file each."""
