"""What the fault tests of sessions share: a learner, a server to be killed, clients that come back, and their twins."""
