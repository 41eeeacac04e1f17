"""Memory tiers, placement of data, capacity, wear, and compute near memory."""
