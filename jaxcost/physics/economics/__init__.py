"""Energy, power, heat, silicon area, cost and carbon."""
