"""Image shards: storage, WebDataset tar files and the pictures in them."""
