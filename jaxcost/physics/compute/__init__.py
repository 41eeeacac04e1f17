"""What a step computes and moves, and how long each operator takes."""
