"""The task learner: inner loops of many sessions, batched.

``orders`` is the seam. Above it the gateway keeps sessions (``sessions``, ``hub``); below it the engine runs orders
(``scheduler`` groups them, ``inner_loop`` says what a step is, ``kernels`` computes, ``core`` joins these, ``process``
gives the core a process of its own, ``client`` is the gateway's end of the pipe).
"""
