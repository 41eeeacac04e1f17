"""Topologies, levels of links, collective algorithms, messages and reliability."""
