"""Video files: frames in, one track one surrogate, MP4 out."""
