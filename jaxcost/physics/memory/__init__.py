"""Memory tiers, where data are placed, capacity, wear, and compute near memory."""
