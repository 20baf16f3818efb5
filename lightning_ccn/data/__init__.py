"""Page views: how they are stored, read and batched."""
