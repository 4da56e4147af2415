"""How the networks of the project's own are made from generated faces; nothing that a run needs."""
