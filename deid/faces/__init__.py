"""From a picture to its faces: detection, mesh, embedding, attributes."""
