"""The files of configs/, or a user's own: their schemas, and the trees they become."""
