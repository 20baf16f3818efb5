"""What a page view is, how it is made, read and batched."""
