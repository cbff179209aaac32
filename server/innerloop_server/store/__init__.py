"""What outlives a process: the catalog and the journal (SQL), and weights (safetensors blobs by content hash).

One process owns a store; its threads may share it. ``store.store.Store`` is the door, ``store.records`` are the values
that pass through it. Importing this package imports nothing else.
"""
