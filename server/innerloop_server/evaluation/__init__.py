"""The evaluator: what adaptation is worth, on which tasks, against which references.

``plan`` says how, ``protocol`` adapts and measures through the engine, ``scores`` is the statistics, ``references``
is what they are read against, ``runner`` runs evaluations in the background and keeps what they found.
"""
