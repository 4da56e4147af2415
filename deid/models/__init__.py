"""The model store, and the networks, each behind one of the interfaces of `deid.interfaces`."""
